"""Swagger UI without the internet: everything that its page loads is served here, and nothing else may be loaded."""

import json
import re
from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx
import pytest

from distriqueue.gateway.rest.app import create_app, openapi
from distriqueue.gateway.rest.pages import CONTENT_SECURITY_POLICY

BASE = "http://gateway.test"


class References(HTMLParser):
    """What a page loads, and scripts that stand in it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.found.extend(value for name, value in values.items() if name in {"src", "href", "action", "data"})
        self.inline += tag == "script" and "src" not in values
        self.inline += any(name.startswith("on") for name in values)


@pytest.fixture(name="client")
def client_fixture() -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(create_app()), base_url=BASE)


async def test_the_page_loads_what_the_gateway_serves_and_nothing_else(client: httpx.AsyncClient) -> None:
    page = await client.get("/api/docs")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    references = References()
    references.feed(page.text)
    assert references.inline == 0
    assert len(references.found) == 4
    kinds = []
    for reference in references.found:
        if reference == "data:,":
            continue
        url = urljoin(str(page.url), reference)
        assert url.startswith(f"{BASE}/api/docs/")
        answer = await client.get(url)
        assert answer.status_code == 200
        assert answer.content
        kinds.append(answer.headers["content-type"].partition(";")[0])
    assert kinds == ["text/css", "text/javascript", "text/javascript"]


async def test_the_start_script_asks_for_our_document_and_no_validator(client: httpx.AsyncClient) -> None:
    script = (await client.get("/api/docs/start.js")).text
    (url,) = re.findall(r'url: "([^"]+)"', script)
    assert "validatorUrl: null" in script
    assert "://" not in script
    answer = await client.get(urljoin(f"{BASE}/api/docs", url))
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == json.loads(json.dumps(openapi()))


async def test_style_sheets_load_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    style = (await client.get("/api/docs/swagger-ui.css")).text
    loaded = re.findall(r"url\(([^)]{0,40})", style) + re.findall(r"@import[^;]*", style)
    assert loaded
    assert all(reference.strip("\"'").startswith("data:") for reference in loaded)


@pytest.mark.parametrize("path", ["/api/docs", "/api/docs/start.js", "/api/openapi.json"])
async def test_browsers_are_told_to_load_nothing_else(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY.partition("script-src")[2].partition(";")[0]
    assert not re.search(r"https?:|\*", CONTENT_SECURITY_POLICY)
    again = await client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")

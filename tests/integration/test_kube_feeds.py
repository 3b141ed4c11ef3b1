"""The feed on a real API server: everything that exists and every change, over every way to miss some."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from distriqueue.kube import feeds
from distriqueue.kube.client import MERGE_PATCH, KubeClient
from distriqueue.kube.feeds import Feed, FeedEvent, FeedType
from distriqueue.kube.resources import Resource, version_of
from localcluster.control_plane import ControlPlane
from tests.integration.kube_plane import (
    TRIES,
    client_fixture,
    compact,
    make_try,
    namespace_fixture,
    new_namespace,
    plane_fixture,
    until,
)
from tests.integration.tcp_relay import Relay

__all__ = ["client_fixture", "namespace_fixture", "plane_fixture"]

pytestmark = pytest.mark.integration


class Book:
    """What a consumer knows from the feed, and whether the feed kept its word with every event."""

    def __init__(self, *, may_go_back: bool = False) -> None:
        self.may_go_back = may_go_back
        self.events: list[FeedEvent] = []
        self.objects: dict[str, dict[str, Any]] = {}
        self.synced = 0

    def __call__(self, event: FeedEvent) -> None:
        self.events.append(event)
        if event.type is FeedType.SYNCED:
            self.synced += 1
            return
        uid = event.object["metadata"]["uid"]
        match event.type:
            case FeedType.ADDED:
                assert uid not in self.objects
                self.objects[uid] = event.object
            case FeedType.MODIFIED:
                assert event.resource_version > version_of(self.objects[uid]) or self.may_go_back
                self.objects[uid] = event.object
            case FeedType.DELETED:
                assert event.resource_version >= version_of(self.objects.pop(uid)) or self.may_go_back

    @property
    def names(self) -> set[str]:
        return {item["metadata"]["name"] for item in self.objects.values()}


@asynccontextmanager
async def running(feed: Feed) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(feed.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task  # what `deliver` found wrong comes out here


async def delete(client: KubeClient, namespace: str, name: str) -> None:
    await client.request("DELETE", TRIES.path(namespace, name))


async def touch(client: KubeClient, namespace: str, name: str, note: str) -> None:
    patch = {"metadata": {"annotations": {"note": note}}}
    await client.request("PATCH", TRIES.path(namespace, name), body=patch, content_type=MERGE_PATCH)


async def as_listed(client: KubeClient, namespace: str) -> dict[str, dict[str, Any]]:
    page = await client.request("GET", TRIES.collection(namespace))
    return {item["metadata"]["uid"]: item for item in page["items"]}


async def test_it_delivers_what_exists_and_what_changes(client: KubeClient, namespace: str) -> None:
    for number in range(25):
        await make_try(client, namespace, f"n{number}")
    book = Book()
    feed = Feed(client, TRIES, (namespace,), book, chunk=10)  # three pages
    assert not feed.synced
    async with running(feed):
        await until(lambda: book.synced == 1)
        assert feed.synced
        assert feed.known == len(book.objects) == 25
        assert book.events[-1].type is FeedType.SYNCED
        await make_try(client, namespace, "new")
        await touch(client, namespace, "n1", "x")
        await delete(client, namespace, "n2")
        await until(lambda: len(book.events) == 29)
    assert [event.type for event in book.events[-3:]] == [FeedType.ADDED, FeedType.MODIFIED, FeedType.DELETED]
    assert book.objects == await as_listed(client, namespace)
    assert book.synced == 1
    assert feed.last_event_age >= 0


async def test_it_follows_one_object_and_no_other(client: KubeClient, namespace: str) -> None:
    for name in ("followed", "other"):
        await make_try(client, namespace, name)
    book = Book()
    async with running(Feed(client, TRIES, (namespace,), book, name="followed")):
        await until(lambda: book.synced == 1)
        for name in ("other", "followed"):
            await touch(client, namespace, name, "x")
        await until(lambda: len(book.events) == 3)
    assert book.names == {"followed"}


async def test_it_follows_several_namespaces_and_no_other(client: KubeClient, namespace: str) -> None:
    others = [await new_namespace(client), await new_namespace(client)]
    for name in (namespace, *others):
        await make_try(client, name, f"in-{name}")
    book = Book()
    async with running(Feed(client, TRIES, (namespace, others[0]), book)):
        await until(lambda: book.synced == 1)
        assert book.names == {f"in-{namespace}", f"in-{others[0]}"}
        await make_try(client, others[1], "unseen")
        await make_try(client, others[0], "seen")
        await until(lambda: "seen" in book.names)
        assert "unseen" not in book.names
        assert book.synced == 1


async def test_it_follows_all_namespaces(client: KubeClient, namespace: str) -> None:
    book = Book()
    other = await new_namespace(client)
    async with running(Feed(client, TRIES, None, book)):
        await until(lambda: book.synced == 1)
        await make_try(client, namespace, f"a-{namespace}")
        await make_try(client, other, f"b-{other}")
        await until(lambda: {f"a-{namespace}", f"b-{other}"} <= book.names)


async def test_no_namespace_is_a_mistake(client: KubeClient) -> None:
    with pytest.raises(ValueError, match="None means all"):
        Feed(client, TRIES, (), lambda _: None)


async def test_a_resync_delivers_differences_and_returns_afterwards(client: KubeClient, namespace: str) -> None:
    await make_try(client, namespace, "a")
    book = Book()
    feed = Feed(client, TRIES, (namespace,), book)
    async with running(feed):
        await until(lambda: book.synced == 1)
        count = len(book.events)
        await feed.resync()
        assert [event.type for event in book.events[count:]] == [FeedType.SYNCED], "nothing had changed"
        for number in range(20):
            # What was written before the call is there after it, whatever the watch has delivered by then.
            await make_try(client, namespace, f"n{number}")
            await feed.resync()
            assert f"n{number}" in book.names
        await asyncio.gather(feed.resync(), feed.resync(), feed.resync())
        await delete(client, namespace, "a")
        await feed.resync()
        assert "a" not in book.names
        assert feed.synced
        await make_try(client, namespace, "after")
        await until(lambda: "after" in book.names)


async def test_catching_up_delivers_what_differs_of_what_matters(client: KubeClient, namespace: str) -> None:
    for name in ("n0", "n1", "n2", "n3", "other"):
        await make_try(client, namespace, name)
    book = Book()
    feed = Feed(client, TRIES, (namespace,), book)

    def expected() -> list[str]:
        return [uid for uid, item in book.objects.items() if item["metadata"]["name"] != "other"]

    async with running(feed):
        await until(lambda: book.synced == 1)
    # The watch is away: as good as one that lags.
    await make_try(client, namespace, "new")
    await touch(client, namespace, "n1", "x")
    await delete(client, namespace, "n2")
    await delete(client, namespace, "n3")
    await make_try(client, namespace, "n3")
    await touch(client, namespace, "other", "x")
    before = len(book.events)
    async with asyncio.timeout(30):
        await feed.catch_up(selector="metadata.name!=other", expected=expected)
    found = await as_listed(client, namespace)
    assert {uid: book.objects[uid] for uid in expected()} == {
        uid: item for uid, item in found.items() if item["metadata"]["name"] != "other"
    }
    kinds = sorted(event.type for event in book.events[before:])
    assert kinds == ["ADDED", "ADDED", "DELETED", "DELETED", "MODIFIED"], "and nothing else is read"
    assert book.synced == 1


async def test_catching_up_beside_the_watch_delivers_nothing_twice(client: KubeClient, namespace: str) -> None:
    book = Book()
    feed = Feed(client, TRIES, (namespace,), book)
    async with running(feed):
        await until(lambda: book.synced == 1)
        await feed.catch_up(selector="metadata.name!=other", expected=lambda: list(book.objects))
        for turn in range(10):
            changes = [make_try(client, namespace, f"turn-{turn}-{number}") for number in range(5)]
            await asyncio.gather(*changes)
            deletions = [delete(client, namespace, f"turn-{turn}-{number}") for number in range(3)]
            # The book asserts that versions grow, and that what is deleted does not come back.
            caught_up = feed.catch_up(selector="metadata.name!=other", expected=lambda: list(book.objects))
            await asyncio.gather(caught_up, *deletions)
        await feed.catch_up(selector="metadata.name!=other", expected=lambda: list(book.objects))
        assert book.objects == await as_listed(client, namespace)


async def test_what_was_missed_is_made_good_after_410(plane: ControlPlane, client: KubeClient, namespace: str) -> None:
    for name in ("kept", "changed", "deleted", "replaced"):
        await make_try(client, namespace, name)
    book = Book()
    async with Relay.to(plane.server) as relay, await KubeClient.connect(relay.kubeconfig(plane.kubeconfig)) as far:
        feed = Feed(far, TRIES, (namespace,), book)
        async with running(feed):
            await until(lambda: book.synced == 1)
            before = dict(book.objects)
            relay.hold()
            relay.cut()
            await touch(client, namespace, "changed", "x")
            await delete(client, namespace, "deleted")
            await delete(client, namespace, "replaced")
            await make_try(client, namespace, "replaced")
            await make_try(client, namespace, "new")
            now = (await client.request("GET", TRIES.collection(namespace)))["metadata"]["resourceVersion"]
            await compact(plane, int(now))
            await asyncio.to_thread(plane.kill_apiserver)  # whose watch cache would remember
            await asyncio.to_thread(plane.start_apiserver)
            relay.go_on()
            await until(lambda: book.synced == 2)
    assert book.names == {"kept", "changed", "replaced", "new"}
    gone = [event for event in book.events if event.type is FeedType.DELETED]
    assert {before[event.object["metadata"]["uid"]]["metadata"]["name"] for event in gone} == {"deleted", "replaced"}
    for event in gone:
        assert set(event.object["metadata"]) == {"namespace", "name", "uid", "resourceVersion"}
        assert event.object["metadata"]["namespace"] == namespace
    kept = [event for event in book.events if event.object.get("metadata", {}).get("name") == "kept"]
    assert len(kept) == 1, "what did not change is not delivered again"


async def test_it_goes_on_where_it_was_after_a_cut(plane: ControlPlane, client: KubeClient, namespace: str) -> None:
    book = Book()
    async with (
        Relay.to(plane.server) as relay,
        await KubeClient.connect(relay.kubeconfig(plane.kubeconfig)) as far,
        running(Feed(far, TRIES, (namespace,), book)),
    ):
        await until(lambda: book.synced == 1)
        for number in range(5):
            relay.cut()
            await make_try(client, namespace, f"kept-{number}")
            await make_try(client, namespace, f"gone-{number}")
            await delete(client, namespace, f"gone-{number}")
            expected = set(await as_listed(client, namespace))
            await until(lambda expected=expected: book.objects.keys() == expected)  # type: ignore[misc]  # bound now
    assert book.synced == 1, "no list was needed"
    assert len([event for event in book.events if event.type is FeedType.DELETED]) == 5, "deletions are seen as such"


async def test_it_outlives_the_api_server(plane: ControlPlane, client: KubeClient, namespace: str) -> None:
    await make_try(client, namespace, "before")
    book = Book()
    feed = Feed(client, TRIES, (namespace,), book)
    async with running(feed) as task:
        await until(lambda: book.synced == 1)
        await asyncio.to_thread(plane.kill_apiserver)
        resync = asyncio.create_task(feed.resync())
        await asyncio.sleep(0.3)
        assert not resync.done()
        await asyncio.to_thread(plane.start_apiserver)
        await resync
        assert not task.done()
        await make_try(client, namespace, "after")
        await until(lambda: book.names == {"before", "after"})


async def test_a_silent_stream_is_replaced(
    plane: ControlPlane, client: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "INACTIVITY_SECONDS", 0.5)
    book = Book()
    async with (
        Relay.to(plane.server) as relay,
        await KubeClient.connect(relay.kubeconfig(plane.kubeconfig)) as far,
        running(Feed(far, TRIES, (namespace,), book)),
    ):
        await until(lambda: book.synced == 1)
        relay.swallow_answers()
        await make_try(client, namespace, "unheard")
        await relay.swallowed()
        relay.answer_again()  # new connections work; on the old one nothing will come
        await until(lambda: "unheard" in book.names)


async def test_watches_that_end_in_order_cost_no_list(
    client: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "WATCH_SECONDS", 1)
    book = Book()
    async with running(Feed(client, TRIES, (namespace,), book)):
        await until(lambda: book.synced == 1)
        for number in range(30):
            await make_try(client, namespace, f"n{number}")
            await asyncio.sleep(0.1)  # over several ends of the watch
        await until(lambda: len(book.objects) == 30)
    assert book.synced == 1
    assert len(book.events) == 31


async def test_large_objects_come_in_smaller_pages(client: KubeClient, namespace: str) -> None:
    for number in range(30):
        await make_try(client, namespace, f"n{number:02}", text="x" * 600_000)
    book = Book()
    async with running(Feed(client, TRIES, (namespace,), book, chunk=15)):
        await until(lambda: book.synced == 1)
    assert len(book.objects) == 30


async def test_a_bug_in_the_consumer_is_not_hidden(client: KubeClient, namespace: str) -> None:
    await make_try(client, namespace, "a")

    def deliver(event: FeedEvent) -> None:
        raise LookupError(event.type)

    with pytest.raises(ExceptionGroup) as raised:
        await Feed(client, TRIES, (namespace,), deliver).run()
    assert raised.group_contains(LookupError)


async def test_an_etcd_that_went_back_in_time_is_noticed(tmp_path: Path) -> None:
    """A backup is restored: versions that the feed knows never were, and objects with them."""
    directory = tmp_path / "plane"

    def stop(plane: ControlPlane) -> None:
        plane.kill_apiserver()
        plane.kill_etcd()

    def start(plane: ControlPlane) -> None:
        plane.start_etcd()
        plane.start_apiserver()

    plane = await asyncio.to_thread(ControlPlane.start, directory)
    try:
        async with await KubeClient.connect(plane.kubeconfig) as client:
            resource = Resource("", "v1", "configmaps")
            namespace = await new_namespace(client)

            async def make(name: str) -> None:
                body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
                await client.request("POST", resource.collection(namespace), body=body)

            await make("kept")
            await asyncio.to_thread(stop, plane)
            await asyncio.to_thread(shutil.copytree, directory / "etcd", directory / "backup")
            await asyncio.to_thread(start, plane)
            book = Book(may_go_back=True)
            async with running(Feed(client, resource, (namespace,), book)):
                await until(lambda: book.synced >= 1)
                for number in range(200):
                    await make(f"lost-{number}")
                await until(lambda: len(book.objects) == 201)
                synced = book.synced
                await asyncio.to_thread(stop, plane)
                await asyncio.to_thread(shutil.rmtree, directory / "etcd")
                await asyncio.to_thread(shutil.move, directory / "backup", directory / "etcd")
                await asyncio.to_thread(start, plane)
                await until(lambda: book.synced > synced)
                assert book.names == {"kept"}
    finally:
        await asyncio.to_thread(plane.stop)

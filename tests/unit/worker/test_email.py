"""The built-in `email`, against a mail server of the test's own."""

import asyncio
import socketserver
import threading
from collections.abc import Iterator

import pytest

from distriqueue_worker import builtin_tasks
from distriqueue_worker.builtin_tasks import Email, email
from distriqueue_worker.results import InvalidPayloadError, read_payload
from distriqueue_worker.tasks import PermanentError, Stopped, TaskContext, marked


class Mailbox(socketserver.ThreadingTCPServer):
    """Speaks just enough SMTP to take messages, and refuses who is called nobody."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Delivery)
        self.messages: list[str] = []


class Delivery(socketserver.StreamRequestHandler):
    server: Mailbox

    def handle(self) -> None:
        self._say("220 test")
        while line := self.rfile.readline().decode().strip():
            verb = line.split()[0].upper()
            if verb == "DATA":
                self._say("354 go on")
                self.server.messages.append(self._read())
            if verb == "QUIT":
                self._say("221 bye")
                return
            self._say("550 unknown" if "nobody" in line else "250 ok")

    def _read(self) -> str:
        lines = []
        while (line := self.rfile.readline().decode()) != ".\r\n":
            lines.append(line)
        return "".join(lines)

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@pytest.fixture(name="mailbox")
def mailbox_fixture(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mailbox]:
    monkeypatch.setenv("DISTRIQUEUE_AMQP_URL", "amqp://broker")
    with Mailbox() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("DISTRIQUEUE_SMTP_URL", f"smtp://127.0.0.1:{server.server_address[1]}")
        yield server
        server.shutdown()
        thread.join()


def context() -> TaskContext:
    return TaskContext(type="email", namespace="n", name="j", uid="uid-7", attempt=1, max_attempts=1, grant="1-1")


def test_a_mail_is_sent_with_the_same_id_in_every_attempt(mailbox: Mailbox) -> None:
    payload = Email(to="ada@example.org", subject="Grüße", body="Hallo Ada")
    for _ in range(2):
        assert email(payload, context()).model_dump() == {"sent": True, "simulated": False, "to": "ada@example.org"}
    first, second = mailbox.messages
    assert "To: ada@example.org\r\n" in first
    assert "Message-ID: <uid-7@distriqueue>\r\n" in first
    assert "Message-ID: <uid-7@distriqueue>\r\n" in second
    assert "Hallo Ada" in first


def test_a_recipient_that_is_refused_is_refused_for_good(mailbox: Mailbox) -> None:
    with pytest.raises(PermanentError, match=r"nobody@example\.org"):
        email(Email(to="nobody@example.org", subject="x"), context())
    assert mailbox.messages == []


def test_a_payload_cannot_add_headers() -> None:
    found = marked(email)
    assert found is not None
    with pytest.raises(InvalidPayloadError, match="subject"):
        read_payload(found.payload_reader(), {"to": "a@b", "subject": "x\r\nBcc: everybody@example.org"})


async def test_without_a_server_it_is_simulated_and_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTRIQUEUE_AMQP_URL", "amqp://broker")
    monkeypatch.delenv("DISTRIQUEUE_SMTP_URL", raising=False)
    monkeypatch.setattr(builtin_tasks, "SIMULATED_EMAIL_SECONDS", 600.0)
    told = context()
    told.cancelled.set()
    with pytest.raises(Stopped):
        await asyncio.wait_for(asyncio.to_thread(email, Email(to="a@b", subject="x"), told), 30)
    monkeypatch.setattr(builtin_tasks, "SIMULATED_EMAIL_SECONDS", 0.0)
    assert (await asyncio.to_thread(email, Email(to="a@b", subject="x"), context())).simulated

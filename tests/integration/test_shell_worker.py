"""The shell worker against a gateway that follows a script: answers that a real one gives once in a year."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pytest

from tests.support.http_workers import SHELL_WORKER

pytestmark = pytest.mark.integration

JOB = {
    "number": 1, "grant": "7-1", "receipt": "sealed", "id": "uid-a", "namespace": "default", "name": "a", "type": "any",
    "attempt": 1, "maxAttempts": 1, "priority": "Medium", "payload": {}, "timeoutSeconds": 60,
}  # fmt: skip
Answer = tuple[int, dict[str, Any]] | None


class ScriptedGateway:
    """Answers by its script, and remembers what it was asked: the last part of the path, the session, the body.

    Args:
        script: Answers a request: the last part of its path, its session, and how often that part was asked before.
            None: no answer, the connection is cut.
    """

    def __init__(self, script: Callable[[str, str, int], Answer]) -> None:
        self._script = script
        self._lock = Lock()
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
                parts = self.path.partition("?")[0].split("/")
                answer = gateway.answer(parts[-1], parts[3], body)
                if answer is not None:
                    content = json.dumps(answer[1]).encode()
                    self.send_response(answer[0])
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """What was asked is in `asked`."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def answer(self, what: str, session: str, body: dict[str, Any]) -> Answer:
        """What the script says."""
        with self._lock:
            before = sum(1 for one in self.asked if one[0] == what)
            self.asked.append((what, session, body))
        answer = self._script(what, session, before)
        if what == "next" and answer == (200, {"jobs": []}):
            time.sleep(0.2)
        return answer

    def of(self, what: str) -> list[tuple[str, dict[str, Any]]]:
        """Sessions and bodies of these requests."""
        with self._lock:
            return [(session, body) for name, session, body in self.asked if name == what]

    def wait_for(self, seen: Callable[[], bool], *, seconds: float = 30.0) -> None:
        """Until it was asked that."""
        until = time.monotonic() + seconds
        while not seen():
            assert time.monotonic() < until, self.asked[-20:]
            time.sleep(0.05)


@contextmanager
def working(gateway: ScriptedGateway, directory: Path, *handler: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker of that gateway, until the block ends."""
    thread = Thread(target=gateway.server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{gateway.server.server_address[1]}"
    environment = {"DISTRIQUEUE_URL": url, "DISTRIQUEUE_TOKEN": "t", "TMPDIR": str(directory)}
    with (directory / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [str(SHELL_WORKER), *handler],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **environment},
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        gateway.server.shutdown()
        gateway.server.server_close()


def test_the_session_before_is_not_used_once_a_registration_is_sent(tmp_path: Path) -> None:
    def script(what: str, _session: str, before: int) -> Answer:
        match what, before:
            case "register", 1:
                return None  # it was heard, and the answer is lost
            case "register", _:
                return 200, {"session": f"session-{before}", "incarnation": "i"}
            case "heartbeat", 1:
                return 410, {}
            case "heartbeat", _:
                return 200, {"stop": [], "leader": True}
            case _:
                return 200, {"jobs": []}

    gateway = ScriptedGateway(script)
    with working(gateway, tmp_path, "true"):
        gateway.wait_for(lambda: len(gateway.of("heartbeat")) >= 3)
    assert [body.get("supersedes") for _, body in gateway.of("register")] == [None, "session-0", "session-0"]
    assert [session for session, _ in gateway.of("heartbeat")] == ["session-0", "session-0", "session-2"]


def test_a_worker_whose_receipts_are_void_registers_without_them(tmp_path: Path) -> None:
    def script(what: str, session: str, before: int) -> Answer:
        match what:
            case "register":
                held = gateway.of("register")[-1][1]["jobs"]
                return (
                    (422, {"detail": "void"}) if held else (200, {"session": f"session-{before}", "incarnation": "i"})
                )
            case "next":
                return 200, {"jobs": [JOB] if before == 0 else []}
            case "heartbeat" if session == "session-0" and gateway.of("report"):
                return 410, {}
            case "heartbeat":
                return 200, {"stop": [], "leader": True}
            case _:
                return 410, {}

    gateway = ScriptedGateway(script)
    with working(gateway, tmp_path, "true"):
        gateway.wait_for(lambda: len(gateway.of("register")) >= 3)
    assert [len(body["jobs"]) for _, body in gateway.of("register")][:3] == [0, 1, 0]


def test_a_signal_to_the_whole_group_leaves_a_handler_its_grace(tmp_path: Path) -> None:
    def script(what: str, _session: str, before: int) -> Answer:
        match what:
            case "register":
                return 200, {"session": "session-0", "incarnation": "i"}
            case "next":
                return 200, {"jobs": [JOB] if before == 0 else []}
            case "heartbeat":
                return 200, {"stop": [], "leader": True}
            case _:
                return 200, {}

    gateway = ScriptedGateway(script)
    begun = tmp_path / "begun"
    with working(gateway, tmp_path, "sh", "-c", f"touch {begun}; sleep 4; echo '\"done\"'") as process:
        gateway.wait_for(begun.exists)
        beats = len(gateway.of("heartbeat"))
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    (_, report), *_ = gateway.of("report")
    assert (report["outcome"], report["result"]) == ("succeeded", "done")
    assert len(gateway.of("heartbeat")) > beats
    assert gateway.of("leave")

"""A handler for the shell worker that writes the same records as `recording_tasks`; a program, started for each job.

The payload is that of `record.slow`: it takes `seconds`, and the result tells the grant. Standard library alone, and
nothing of ours: it has to start fast.
"""

import json
import os
import signal
import sys
import time
from types import FrameType


def append(event: str) -> None:
    environment = os.environ
    record = {
        "event": event,
        "namespace": environment["JOB_NAMESPACE"],
        "name": environment["JOB_NAME"],
        "uid": environment["JOB_ID"],
        "type": environment["JOB_TYPE"],
        "attempt": int(environment["JOB_ATTEMPT"]),
        "grant": environment["JOB_GRANT"],
        "worker": environment["DISTRIQUEUE_WORKER_NAME"],
        "pid": os.getpid(),
        "mono": time.monotonic(),
        "wall": time.time(),
    }
    descriptor = os.open(environment["DISTRIQUEUE_TEST_RECORDS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, json.dumps(record).encode() + b"\n")
    os.close(descriptor)


def stop(_signal: int, _frame: FrameType | None) -> None:
    append("stopped")
    os._exit(1)


signal.signal(signal.SIGTERM, stop)
append("started")
payload = json.load(sys.stdin)
time.sleep(payload.get("seconds", 0))
if payload.get("fail"):
    append("raised")
    sys.exit("failed as told")
append("returned")
json.dump({"grant": os.environ["JOB_GRANT"]}, sys.stdout)

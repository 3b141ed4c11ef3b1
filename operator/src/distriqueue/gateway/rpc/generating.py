"""Generates the Python stubs from the proto: `python -m distriqueue.gateway.rpc.generating`, or `make protos`.

Guarantees: the same proto and the same locked grpcio-tools give the same bytes, so a test can hold the committed stubs
against it. There are messages and their types alone: the service is read from the descriptor (`methods`), so there is
no generated code without types. Fails with `subprocess.CalledProcessError` after protoc has said what is wrong.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

PROTO_ROOT: Final = Path(__file__).parent / "proto"
"""Where the proto's package begins; the `-I` of protoc."""
PROTO_FILE: Final = "distriqueue/v1alpha1/jobs.proto"
STUBS: Final = Path(__file__).parent / "stubs"
GENERATED: Final = ("jobs_pb2.py", "jobs_pb2.pyi")


def generate(directory: Path) -> None:
    """Write the stubs into a directory.

    Raises:
        subprocess.CalledProcessError: The proto is wrong, or grpcio-tools is not installed.
    """
    with tempfile.TemporaryDirectory() as temporary:
        protoc(f"--python_out={temporary}", f"--pyi_out={temporary}")
        for name in GENERATED:
            (directory / name).write_bytes((Path(temporary) / PROTO_FILE).with_name(name).read_bytes())


def describe() -> bytes:
    """Return the proto as a serialised FileDescriptorSet with all comments: what a lint looks at.

    Raises:
        subprocess.CalledProcessError: The proto is wrong, or grpcio-tools is not installed.
    """
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary) / "descriptors"
        protoc("--include_source_info", f"--descriptor_set_out={target}")
        return target.read_bytes()


def protoc(*options: str) -> None:
    """Run protoc over the proto.

    Raises:
        subprocess.CalledProcessError: It failed; it has said why on standard error.
    """
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO_ROOT}", *options, PROTO_FILE]
    subprocess.run(command, check=True)  # noqa: S603 - our own interpreter and our own arguments


if __name__ == "__main__":
    generate(STUBS)

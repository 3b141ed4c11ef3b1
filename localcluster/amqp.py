"""Asking an AMQP 0-9-1 server whether it serves, with nothing but a socket.

An open port proves little: the broker may still be booting, or refuse the login. This goes all the way to an opened
virtual host and closes again. Fails never: whatever goes wrong means that it does not serve yet.
"""

import socket
import struct
from collections.abc import Callable

_START, _START_OK, _TUNE, _TUNE_OK, _OPEN, _OPEN_OK, _CLOSE, _CLOSE_OK = 10, 11, 30, 31, 40, 41, 50, 51
"""Methods of the class `connection`."""
_CONNECTION = 10
_METHOD_FRAME = 1
_FRAME_END = b"\xce"


def serves(
    port: int, *, host: str = "127.0.0.1", login: tuple[str, str] = ("guest", "guest"), timeout: float = 5
) -> bool:
    """Return whether a login and the opening of the virtual host ``/`` succeed.

    Args:
        port: The AMQP port.
        host: The server's address.
        login: User and password.
        timeout: Seconds to wait for each answer.
    """
    try:
        with socket.create_connection((host, port), timeout=timeout) as link, link.makefile("rb") as answers:
            read = answers.read
            link.sendall(b"AMQP\x00\x00\x09\x01")
            _expect(read, _START)
            plain = "\0".join(("", *login)).encode()
            start_ok = struct.pack(">I", 0) + _short("PLAIN") + struct.pack(">I", len(plain)) + plain + _short("en_US")
            link.sendall(_method(_START_OK, start_ok))
            channels, frame_size, _heartbeat = struct.unpack(">HIH", _expect(read, _TUNE)[:8])
            link.sendall(_method(_TUNE_OK, struct.pack(">HIH", channels, frame_size, 0)))
            link.sendall(_method(_OPEN, _short("/") + _short("") + b"\0"))
            _expect(read, _OPEN_OK)
            link.sendall(_method(_CLOSE, struct.pack(">H", 200) + _short("bye") + struct.pack(">HH", 0, 0)))
            _expect(read, _CLOSE_OK)
    except (OSError, ValueError, struct.error):
        return False
    return True


def _short(text: str) -> bytes:
    data = text.encode()
    return bytes([len(data)]) + data


def _method(number: int, arguments: bytes) -> bytes:
    payload = struct.pack(">HH", _CONNECTION, number) + arguments
    return struct.pack(">BHI", _METHOD_FRAME, 0, len(payload)) + payload + _FRAME_END


def _expect(read: Callable[[int], bytes], number: int) -> bytes:
    kind, _channel, size = struct.unpack(">BHI", read(7))
    payload, end = read(size), read(1)
    if kind != _METHOD_FRAME or end != _FRAME_END or struct.unpack(">HH", payload[:4]) != (_CONNECTION, number):
        raise ValueError("not the answer that was expected")
    return payload[4:]

"""Messages between a pool and its workers: JSON with its length before it. Nothing that is received is executed."""

import json
import socket
import struct
import time
from typing import Any

MOST_BYTES = 2**28
"""Of a message."""

_LENGTH = struct.Struct("!I")


def packed(message: Any) -> bytes:
    """Return a message as it is sent.

    Raises:
        ValueError: It is too long, or no JSON.
    """
    data = json.dumps(message).encode()
    if len(data) > MOST_BYTES:
        raise ValueError(f"expected a message of at most {MOST_BYTES} bytes, got {len(data)}")
    return _LENGTH.pack(len(data)) + data


def send(connection: socket.socket, message: Any) -> None:
    """Send a message.

    Raises:
        ValueError: It is too long, or no JSON.
        OSError: Nobody receives it.
    """
    connection.sendall(packed(message))


def receive(connection: socket.socket, until: float | None = None) -> Any:
    """Receive a message.

    Args:
        connection: From whom.
        until: The time, by `time.monotonic`, at which it has to be there; None to wait.

    Raises:
        TimeoutError: It is not.
        EOFError: The other side has ended.
        ValueError: It is too long, or no JSON.
    """
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size, until))
    if length > MOST_BYTES:
        raise ValueError(f"expected a message of at most {MOST_BYTES} bytes, got {length}")
    return json.loads(_exactly(connection, length, until))


def _exactly(connection: socket.socket, count: int, until: float | None) -> bytes:
    data = bytearray()
    while len(data) < count:
        connection.settimeout(None if until is None else max(0.0, until - time.monotonic()))
        try:
            piece = connection.recv(min(count - len(data), 2**20))
        except BlockingIOError:  # there is no time left, and nothing there already
            raise TimeoutError from None
        except ConnectionResetError:
            piece = b""
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)

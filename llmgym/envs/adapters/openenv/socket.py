"""The sockets of OpenEnv clients: a message out, an answer in, and what it means if there is none.

A server holds as many environments as it has sockets, and often has room for few. So the environments of one process
share their sockets: each has one from the beginning of an episode to its end, and waits for one if there is no room.
"""

import contextlib
import json
import threading
import time
import urllib.parse
import urllib.request
from typing import Any

from llmgym.errors import ConfigError, EnvironmentFailedError, InfrastructureError, import_extra

client: Any = import_extra("websockets.sync.client", extra="openenv")
exceptions: Any = import_extra("websockets.exceptions", extra="openenv")

Json = dict[str, Any]

_LARGEST_MESSAGE = 2**26  # bytes
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0  # seconds until a full server is asked again, if nothing happens here before


class RefusedError(Exception):
    """A server refuses an action, for a reason that its agent may be told."""


class _FullError(Exception):
    """A server has no room."""


class _LostError(Exception):
    """A connection is lost, or never was."""


class Socket:
    """What one environment says to its server.

    Args:
        address: Of the server.
        timeout: Seconds to wait for an answer.
        room_timeout: Seconds to wait for room.
    """

    def __init__(self, address: str, timeout: float, room_timeout: float) -> None:
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in ("ws", "wss", "http", "https") or not parts.netloc:
            raise ConfigError(f"openenv: expected an address such as ws://127.0.0.1:8000/ws, got {address!r:.200}")
        secure = "s" if parts.scheme in ("wss", "https") else ""
        place = parts.netloc + parts.path.rstrip("/").removesuffix("/ws")
        self.address = f"ws{secure}://{place}/ws"
        self._page = f"http{secure}://{place}/schema"
        self._timeout, self._room_timeout = timeout, room_timeout
        self._connection: _Connection | None = None
        self._shared: _Shared | None = None

    def schema(self) -> Json:
        """Return the JSON schema of the server's actions."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self._page, timeout=self._timeout) as page:
                schema: Json = json.loads(page.read(_LARGEST_MESSAGE))["action"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EnvironmentFailedError(f"{self._page}: {type(error).__name__}: {error}") from error
        return schema

    def reset(self, data: Json) -> Json:
        """Begin an episode, once there is room, and return the data of the answer.

        Raises:
            InfrastructureError: There is no server, or no room in time.
            EnvironmentFailedError: There is no observation.
        """
        if self._shared is None:
            self._shared = _shared(self.address)
        until, patience = time.monotonic() + self._room_timeout, _FIRST_WAIT
        while True:
            connection = self._connection or self._shared.take()
            known, self._connection = connection is not None, None
            try:
                connection = connection or _Connection(self.address, self._timeout)
                answer = connection.ask("reset", data)
            except (_FullError, _LostError) as error:
                self._shared.close(connection, known=known)
                full = isinstance(error, _FullError)
                if full and self._shared.wait(until, patience):
                    patience = min(2 * patience, _LONGEST_WAIT)
                elif full or not known:  # one that was opened before may be of a server that was started again since
                    raise InfrastructureError(f"{self.address}: {error}") from error
                continue
            self._connection = connection
            return self._observation(answer)

    def step(self, data: Json) -> Json:
        """Take a step, and return the data of the answer.

        Raises:
            RefusedError: The server says that the action is not valid.
            InfrastructureError: The connection is lost.
            EnvironmentFailedError: Anything else goes wrong.
        """
        if self._connection is None:
            raise InfrastructureError(f"{self.address}: the connection is lost, and the episode with it")
        try:
            answer = self._connection.ask("step", data)
        except (_LostError, _FullError) as error:
            self._leave()
            raise InfrastructureError(f"{self.address}: {error}") from error
        said = answer.get("data")
        if isinstance(said, dict) and said.get("code") == "VALIDATION_ERROR":
            raise RefusedError(json.dumps(said.get("errors", said.get("message")), ensure_ascii=False))
        return self._observation(answer)

    def release(self) -> None:
        """Let another environment have the socket, at the end of an episode."""
        connection, self._connection = self._connection, None
        if connection is not None and self._shared is not None:
            self._shared.give_back(connection)

    def close(self) -> None:
        """Release the socket; with the last environment of the process, all of them are closed."""
        self.release()
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.leave()

    def _observation(self, answer: Json) -> Json:
        data = answer.get("data")
        if answer.get("type") == "observation" and isinstance(data, dict):
            return data
        self._leave()
        code = data.get("code") if isinstance(data, dict) else None
        raise EnvironmentFailedError(f"{self.address}: {code or 'expected an observation'}: {answer!r:.500}")

    def _leave(self) -> None:
        """Close the socket: nobody knows where its episode stands."""
        connection, self._connection = self._connection, None
        if connection is not None and self._shared is not None:
            self._shared.close(connection, known=True)


class _Connection:
    """An open WebSocket."""

    def __init__(self, address: str, timeout: float) -> None:
        self._timeout = timeout
        self._open = contextlib.ExitStack()
        opening = {"proxy": None, "open_timeout": timeout, "max_size": _LARGEST_MESSAGE, "compression": None}
        try:
            self._socket = self._open.enter_context(client.connect(address, **opening))
        except Exception as error:  # whatever it is, there is no connection
            raise _LostError(f"{type(error).__name__}: {error}") from error

    def ask(self, kind: str, data: Json) -> Json:
        """Send a message and return the answer.

        Raises:
            _FullError: It says that the server has no room.
            _LostError: There is none.
        """
        try:
            with contextlib.suppress(exceptions.ConnectionClosed):  # its last words are read below
                self._socket.send(json.dumps({"type": kind, "data": data}))
            answer = json.loads(self._socket.recv(timeout=self._timeout))
        except Exception as error:  # whatever it is, nobody knows where the episode stands
            raise _LostError(f"{type(error).__name__}: {error}") from error
        if not isinstance(answer, dict):
            raise _LostError(f"expected a JSON object, got {answer!r:.80}")
        said = answer.get("data")
        if isinstance(said, dict) and said.get("code") == "CAPACITY_REACHED":
            raise _FullError(f"CAPACITY_REACHED: {said.get('message')}")
        return answer

    def close(self) -> None:
        """Say goodbye and close it."""
        with contextlib.suppress(Exception):  # it may be lost, and is not needed any more
            self._socket.send('{"type": "close"}')
        with contextlib.suppress(Exception):
            self._open.close()


class _Shared:
    """The sockets to one server that environments of this process opened."""

    def __init__(self) -> None:
        self.environments = 0
        self._changed = threading.Condition()
        self._idle: list[_Connection] = []

    def take(self) -> _Connection | None:
        """Return one that nobody has; None if there is none."""
        with self._changed:
            return self._idle.pop() if self._idle else None

    def give_back(self, connection: _Connection) -> None:
        """Let somebody else have one."""
        with self._changed:
            self._idle.append(connection)
            self._changed.notify()

    def close(self, connection: _Connection | None, *, known: bool) -> None:
        """Close one, which may have left room if it was held: whom the server refuses had none."""
        if connection is not None:
            connection.close()
        if known:
            with self._changed:
                self._changed.notify()

    def wait(self, until: float, patience: float) -> bool:
        """Wait until there may be room, or for `patience` seconds; returns whether that was in time."""
        with self._changed:
            left = until - time.monotonic()
            if left > 0 and not self._idle:
                self._changed.wait(min(left, patience))
            return left > 0

    def leave(self) -> None:
        """Count an environment less, and close all sockets if it was the last."""
        with _LOCK:
            self.environments -= 1
            idle, self._idle = (self._idle, []) if not self.environments else ([], self._idle)
        for connection in idle:
            connection.close()


_LOCK = threading.Lock()
_SHARED: dict[str, _Shared] = {}


def _shared(address: str) -> _Shared:
    """Return the sockets to a server, and count an environment more that uses them."""
    with _LOCK:
        shared = _SHARED.setdefault(address, _Shared())
        shared.environments += 1
        return shared

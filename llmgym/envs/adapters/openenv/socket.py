"""The socket of an OpenEnv client: a message out, an answer in, and what it means if there is none."""

import contextlib
import json
import urllib.parse
import urllib.request
from typing import Any

from llmgym.envs.adapters import import_extra
from llmgym.errors import ConfigError, EnvironmentFailedError

client: Any = import_extra("websockets.sync.client", extra="openenv")
exceptions: Any = import_extra("websockets.exceptions", extra="openenv")

Json = dict[str, Any]

_LARGEST_MESSAGE = 2**26  # bytes


class RefusedError(Exception):
    """A server refuses an action, for a reason that its agent may be told."""


class Socket:
    """A connection to a server, which is made when it is first needed, and made again once it was lost.

    Args:
        address: Of the server.
        timeout: Seconds to wait for it.
    """

    def __init__(self, address: str, timeout: float) -> None:
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in ("ws", "wss", "http", "https") or not parts.netloc:
            raise ConfigError(f"openenv: expected an address such as ws://127.0.0.1:8000/ws, got {address!r:.200}")
        secure = "s" if parts.scheme in ("wss", "https") else ""
        place = parts.netloc + parts.path.rstrip("/").removesuffix("/ws")
        self.address = f"ws{secure}://{place}/ws"
        self._page = f"http{secure}://{place}/schema"
        self._timeout = timeout
        self._connection: Any = None
        self._open = contextlib.ExitStack()

    def schema(self) -> Json:
        """Return the JSON schema of the server's actions."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self._page, timeout=self._timeout) as page:
                schema: Json = json.loads(page.read(_LARGEST_MESSAGE))["action"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EnvironmentFailedError(f"{self._page}: {type(error).__name__}: {error}") from error
        return schema

    def ask(self, kind: str, data: Json) -> Json:
        """Send a message, and return the data of its answer.

        Raises:
            RefusedError: The server says that the data are not valid.
            EnvironmentFailedError: Anything else goes wrong.
        """
        answer = self._exchange(json.dumps({"type": kind, "data": data}))
        content = answer.get("data")
        if answer.get("type") == "observation" and isinstance(content, dict):
            return content
        said = content if isinstance(content, dict) else {}
        if kind == "step" and said.get("code") == "VALIDATION_ERROR":
            raise RefusedError(json.dumps(said.get("errors", said.get("message")), ensure_ascii=False))
        self.close()
        raise EnvironmentFailedError(f"{self.address}: {said.get('code', 'expected an observation')}: {said!r:.500}")

    def close(self) -> None:
        """Say goodbye, and close the connection if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # it may be lost, and is not needed any more
                connection.send('{"type": "close"}')
        self._open.close()

    def _exchange(self, message: str) -> Json:
        try:
            if self._connection is None:
                self._connection = self._open.enter_context(
                    client.connect(
                        self.address,
                        proxy=None,
                        open_timeout=self._timeout,
                        max_size=_LARGEST_MESSAGE,
                        compression=None,
                    )
                )
            with contextlib.suppress(exceptions.ConnectionClosed):  # what the server said before it left is read below
                self._connection.send(message)
            answer = json.loads(self._connection.recv(timeout=self._timeout))
        except Exception as error:  # whatever it is, nobody knows where the episode stands
            self.close()
            raise EnvironmentFailedError(f"{self.address}: {type(error).__name__}: {error}") from error
        if not isinstance(answer, dict):
            raise EnvironmentFailedError(f"{self.address}: expected a JSON object, got {answer!r:.80}")
        return answer

"""`ServerLog`: what a server of ours writes, without its key."""

import contextlib
import os
import threading
from typing import IO

from llmgym.directories import OwnDirectory

_LONGEST_LINE = 2**16  # bytes that are read at once
_LAST_WORDS = 0.5  # seconds in which those of a process that has ended arrive


class ServerLog:
    """What a process writes, in a file that only its owner can read, under a name that nobody knows before.

    Servers write their options at their start, the key among them; it is left out.

    Args:
        source: Where the process writes.
        secret: The key.
        name: Of the server.
    """

    def __init__(self, source: IO[bytes], secret: str, name: str) -> None:
        self._directory = OwnDirectory(f"llmgym-{name.lower()}-")
        self.path = self._directory.path / "server.log"
        self._source, self._secret = source, secret.encode()
        self._target = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0)
        self._copying = threading.Thread(target=self._copy, name="server-log", daemon=True)
        self._copying.start()

    def lines(self) -> list[str]:
        """Return what a process that has ended has written."""
        self._copying.join(timeout=_LAST_WORDS)  # its children may still write
        return self.path.read_text(encoding="utf-8", errors="replace").splitlines() if self.path.exists() else []

    def remove(self) -> None:
        """Remove the file."""
        self._directory.remove()

    def keep(self) -> None:
        """Leave the file to whoever looks for what went wrong."""
        self._directory.keep()

    def _copy(self) -> None:
        held = b""  # the end of a piece of a long line, which may be the beginning of the key
        with self._source, self._target:
            while piece := self._source.readline(_LONGEST_LINE):
                clean = (held + piece).replace(self._secret, b"***")
                end = len(clean) if piece.endswith(b"\n") else max(0, len(clean) - len(self._secret) + 1)
                self._write(clean[:end])
                held = clean[end:]
            self._write(held)

    def _write(self, text: bytes) -> None:
        with contextlib.suppress(OSError):  # a full disk must not hold the server up
            self._target.write(text)

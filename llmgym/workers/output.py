"""What workers print: the beginning of it goes to a file, the rest nowhere."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

MOST_OUTPUT = 10 * 2**20
"""Bytes of what workers print that are kept."""


@contextlib.contextmanager
def kept_output(log: Path | None) -> Iterator[int]:
    """Yield a descriptor for processes to write to, until the last of them has ended.

    Args:
        log: File to append to, which is made if anything is written; None for nowhere.
    """
    reading, writing = os.pipe()
    threading.Thread(target=_keep, args=(reading, log), name="llmgym-worker-log", daemon=True).start()
    try:
        yield writing
    finally:
        os.close(writing)


def _keep(reading: int, log: Path | None) -> None:
    left = MOST_OUTPUT if log is not None else 0
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, reading)
        file: IO[bytes] | None = None
        while data := os.read(reading, 2**16):
            if not left or log is None:
                continue
            try:
                file = file or stack.enter_context(_opened(log))
                left -= file.write(data[:left])
                file.flush()
            except OSError:  # what cannot be kept is read all the same, or who prints would fail
                left = 0


def _opened(log: Path) -> IO[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    return log.open("ab")

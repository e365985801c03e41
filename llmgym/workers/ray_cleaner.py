"""Ends what is left of a local Ray once its owner is gone, and deletes its directory; a program of its own.

It reads its input until that ends, which happens when the owner closes it or dies, in whatever way.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

PATIENCE = 5.0
"""Seconds in which Ray's processes may end by themselves."""


def clean(directory: str, owner: int, patience: float = PATIENCE) -> None:
    """Wait for the processes that write to a directory, kill those that stay but for its owner, and delete it."""
    until = time.monotonic() + patience
    while (left := _writers(directory, owner)) and time.monotonic() < until:
        time.sleep(0.1)
    for process in left:
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)
    while left and time.monotonic() < until + patience:
        time.sleep(0.05)
        left = _writers(directory, owner)
    shutil.rmtree(directory, ignore_errors=True)


def _writers(directory: str, owner: int) -> list[int]:
    """Return the processes of others that have a file of a directory open or name it in their command."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) in (os.getpid(), owner):
            continue
        with contextlib.suppress(OSError):  # it has ended, or belongs to somebody else
            names = [_target(one) for one in (process / "fd").iterdir()]
            command = (process / "cmdline").read_bytes()
            if any(name.startswith(directory) for name in names) or os.fsencode(directory) in command:
                found.append(int(process.name))
    return found


def _target(descriptor: Path) -> str:
    """Return what a descriptor is of; nothing if it was closed meanwhile."""
    try:
        return os.readlink(descriptor)
    except OSError:
        return ""


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    clean(sys.argv[1], owner=int(sys.argv[2]))

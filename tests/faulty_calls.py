"""What functions of users do to the process that calls them."""

import ctypes
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress


def raises() -> float:
    raise ValueError("no such key")


def sleeps() -> float:
    time.sleep(1000)
    return 1.0


def spins() -> float:
    while True:
        pass


def backtracks() -> float:
    re.match(r"(a|aa)+$", "a" * 200 + "b")
    return 1.0


def waits_in_c() -> float:
    ctypes.CDLL(None).pause()
    return 1.0


def ignores_exceptions() -> float:
    while True:
        with suppress(BaseException):
            time.sleep(1000)


def exits() -> float:
    sys.exit(0)


def leaves() -> float:
    os._exit(0)


def crashes() -> float:
    ctypes.string_at(0)
    return 1.0


def eats() -> float:
    held = [bytearray(2**28) for _ in range(16)]
    return float(len(held))


def prints() -> float:
    line = "x" * 2**20
    for _ in range(1024):
        print(line)  # noqa: T201  # this is the fault
        os.write(2, line.encode())
    return float("nan")


def forks() -> float:
    if not os.fork():
        return 7.0
    return float("nan")


def starts_threads() -> float:
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    return float("nan")


def kills_itself() -> float:
    os.kill(os.getpid(), 9)
    return 1.0


def recurses() -> float:
    return recurses()


def stops() -> float:
    raise StopIteration


def interrupts() -> float:
    raise KeyboardInterrupt


HANGS: dict[str, Callable[[], float]] = {
    one.__name__: one for one in (sleeps, spins, backtracks, waits_in_c, ignores_exceptions)
}
ENDS: dict[str, Callable[[], float]] = {one.__name__: one for one in (leaves, crashes, kills_itself)}
RAISES: dict[str, Callable[[], float]] = {one.__name__: one for one in (raises, exits, recurses, stops)}
DISTURBS: dict[str, Callable[[], float]] = {one.__name__: one for one in (eats, prints, forks, starts_threads)}

"""What interrupts a run, and when it may."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off an interruption until the block is done; a second one is put off, too."""
    asked: list[int] = []
    with _handling((signal.SIGINT, signal.SIGTERM), lambda number, frame: asked.append(number)):
        yield
    if asked:
        raise KeyboardInterrupt


terminations: list[int] = []
"""Signals that terminate the run under way. A library may catch the interruption that each raises; this is left."""


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM, with which schedulers end a job, interrupt a run as Ctrl-C does, and leave a mark."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        terminations.append(number)
        raise KeyboardInterrupt

    try:
        with _handling((signal.SIGTERM,), interrupt):
            yield
    finally:
        terminations.clear()


@contextlib.contextmanager
def _handling(numbers: tuple[int, ...], handler: Any) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only there Python takes signals
        yield
        return
    before = [(number, signal.signal(number, handler)) for number in numbers]
    try:
        yield
    finally:
        for number, previous in before:
            signal.signal(number, signal.SIG_DFL if previous is None else previous)

"""What interrupts a run, and when it may."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from llmgym.report.console import notify

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
OUT_OF_BUDGET = 75
"""Exit code of a run that ended because it has taken what it may: it can be gone on with."""
_LOOK_EVERY = 0.2  # seconds
_SOON = 0.05  # seconds, after which a run is interrupted again


class Interrupted(KeyboardInterrupt):
    """A run was asked to end.

    Attributes:
        code: Its exit code: 128 and the number of the signal, or `OUT_OF_BUDGET`.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"interrupted ({code})")
        self.code = code


class LeaveAtOnceError(Interrupted):
    """It was asked again: nothing is saved."""


class Interruptions:
    """Decides what a request to end a run does: SIGINT (Ctrl-C), SIGTERM, SIGHUP, or a limit that is reached.

    The first lets the step under way end, if it does so within `grace` seconds; else what is played is abandoned, but
    never an update. The second leaves at once.

    Args:
        grace: Seconds that a step may take to end.
        limit: Returns what the run has used up, in words, or None; see `Limits`.
        busy: Tells whether something is done that may not be interrupted for a moment.
    """

    def __init__(
        self,
        grace: float,
        limit: Callable[[], str | None] = lambda: None,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._grace, self._limit, self._busy = grace, limit, busy
        self._asked: int | None = None  # the exit code
        self._stepping = self._saving = self._waking = False
        self.updating = False
        """Whether weights are updated or what was done is noted, which is not abandoned; set by whoever does so."""
        self._timers: list[threading.Timer] = []

    @contextlib.contextmanager
    def handling(self) -> Iterator[None]:
        """Take signals within a block; outside of the main thread, there are none."""
        over = threading.Event()
        try:
            with _handling(_SIGNALS, self._on_signal), _noticing_lost(lambda lost: self._after(_SOON, self._wake)):
                threading.Thread(target=self._watch, args=(over,), daemon=True).start()
                yield
        finally:
            over.set()
            for timer in self._timers:
                timer.cancel()

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Let a training step end although the run was asked to end, and interrupt the run after it."""
        self._stepping = True
        try:
            yield
        finally:
            self._stepping = False
        if self._asked is not None:  # a library may have caught the interruption
            raise Interrupted(self._asked)

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Let nothing interrupt a block, which writes what was learnt."""
        self._saving = True
        try:
            yield
        finally:
            self._saving = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._waking:  # by one of the timers
            self._waking = False
            if self._asked is not None and not (self._stepping and self.updating) and not self._saving:
                self._interrupt(self._asked)
        elif self._asked is None:
            self._ask(128 + number, signal.Signals(number).name)
            if not self._stepping and not self._saving:
                self._interrupt(128 + number)
        elif not self._saving:
            raise LeaveAtOnceError(128 + number)

    def _interrupt(self, code: int) -> None:
        """Interrupt the run, or try again in a moment."""
        if not self._busy():
            raise Interrupted(code)
        self._after(_SOON, self._wake)

    def _ask(self, code: int, who: str) -> None:
        """Note that the run is asked to end, and wait for the step under way, if there is one."""
        self._asked = code
        if self._stepping:
            notify(
                f"{who}: the run saves and ends after this step, and waits at most {self._grace:g} s for its episodes. "
                "A second signal ends it at once, without saving."
            )
            self._after(self._grace, self._wake)

    def _watch(self, over: threading.Event) -> None:
        """Ask the run to end once it has reached a limit; called in a thread."""
        while not over.wait(_LOOK_EVERY) and self._asked is None:
            if (reached := self._limit()) is not None:
                self._ask(OUT_OF_BUDGET, reached)
                if not self._stepping:
                    notify(f"{reached}: the run ends.")
                    self._wake()

    def _wake(self) -> None:
        """Have the main thread interrupt what can be interrupted; called in another."""
        numbers = [number for number in _SIGNALS if signal.getsignal(number) == self._on_signal]
        if numbers:
            self._waking = True
            os.kill(os.getpid(), numbers[-1])

    def _after(self, seconds: float, do: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, do)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)


@contextlib.contextmanager
def keeping_handlers() -> Iterator[None]:
    """Give signals back the handlers that they had before a block, in which libraries set their own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let no signal interrupt a block, which ends when somebody else says so."""
    with _handling(_SIGNALS, lambda number, frame: None):
        yield


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """Let SIGTERM, with which schedulers end a job, and SIGHUP interrupt a block as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(128 + number)

    def again(lost: Interrupted) -> None:
        threading.Timer(_SOON, os.kill, (os.getpid(), lost.code - 128)).start()

    with _handling(_SIGNALS, interrupt), _noticing_lost(again):
        yield


@contextlib.contextmanager
def _noticing_lost(tell: Callable[[Interrupted], object]) -> Iterator[None]:
    """Be told of an interruption that Python ignores, since it fell into a finaliser or into a callback of a fork."""
    before = sys.unraisablehook

    def hook(ignored: "sys.UnraisableHookArgs") -> None:
        if isinstance(ignored.exc_value, Interrupted):
            tell(ignored.exc_value)
        else:
            before(ignored)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextlib.contextmanager
def _handling(numbers: tuple[int, ...], handler: Any) -> Iterator[None]:
    """Handle signals, but those that this process was told to ignore, as ``nohup`` does."""
    if threading.current_thread() is not threading.main_thread():  # only there Python takes signals
        yield
        return
    taken = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = [(number, signal.signal(number, handler)) for number in taken]
    try:
        yield
    finally:
        for number, previous in before:
            signal.signal(number, signal.SIG_DFL if previous is None else previous)

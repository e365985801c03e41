"""Packages that draw from Python's and NumPy's global generators, kept from each other and from everybody else."""

import random
import threading
import types
from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any

import numpy as np

_LOCK = threading.RLock()


class GlobalRandom:
    """A state of its own for the global generators, which they have inside a ``with`` block and nowhere else.

    Threads take turns, so what is inside should be short.

    Args:
        seed: What the state begins with.

    Examples:
        >>> own = GlobalRandom(0)
        >>> with own:
        ...     first = random.random()
        >>> again = GlobalRandom(0)
        >>> with again:
        ...     first == random.random()
        True
    """

    def __init__(self, seed: int) -> None:
        self._python: Any = random.Random(seed).getstate()
        self._numpy: Any = np.random.RandomState(seed % 2**32).get_state()
        self._before: Any = None

    def __enter__(self) -> None:
        _LOCK.acquire()
        self._before = random.getstate(), np.random.get_state()
        random.setstate(self._python)
        np.random.set_state(self._numpy)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._python, self._numpy = random.getstate(), np.random.get_state()
        python, numpy = self._before
        random.setstate(python)
        np.random.set_state(numpy)
        _LOCK.release()


async def drawing_from(own: GlobalRandom, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine comes to, which has a state of its own of the global generators wherever it runs."""
    return await _drawing_from(own, coroutine)


@types.coroutine
def _drawing_from(own: GlobalRandom, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    go_on: Any = coroutine.send
    value: Any = None
    while True:
        try:
            with own:
                waits_for = go_on(value)
        except StopIteration as end:
            return end.value
        try:
            value, go_on = (yield waits_for), coroutine.send
        except BaseException as error:  # noqa: BLE001  # it is for the coroutine, such as that it is cancelled
            value, go_on = error, coroutine.throw

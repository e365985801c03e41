"""Methods that wait: coroutines and blocking calls of environments and scorers, and who waits for them."""

import asyncio
import concurrent.futures
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Self, TypeVar

Value = TypeVar("Value")

_thread = threading.local()  # of a room's thread: the room


def waits(owner: object, *methods: str) -> bool:
    """Tell whether an object says that it waits: it is `blocking`, or one of its methods is a coroutine function."""
    named = (getattr(owner, name, None) for name in methods)
    return bool(getattr(owner, "blocking", False)) or any(map(inspect.iscoroutinefunction, named))


def settled(value: Any) -> Any:
    """Return a value, or what an awaitable comes to.

    In a thread of a `WaitingRoom` it runs in the loop that the room belongs to, beside all others; elsewhere in a loop
    of its own.
    """
    if not inspect.isawaitable(value):
        return value
    room: WaitingRoom | None = getattr(_thread, "room", None)
    return run(_awaited(value)) if room is None else room.await_in_loop(_awaited(value))


def run(coroutine: Coroutine[Any, Any, Value]) -> Value:
    """Run a coroutine to its end, also where a loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        return other.submit(asyncio.run, coroutine).result()


class WaitingRoom:
    """Threads for what waits; the coroutines that it calls run in the loop that the room was entered in.

    Args:
        size: How many may wait at once.
    """

    def __init__(self, size: int) -> None:
        self._threads = concurrent.futures.ThreadPoolExecutor(size, "llmgym-waiting", initializer=self._enter)
        self._under_way: set[concurrent.futures.Future[Any]] = set()

    async def __aenter__(self) -> Self:
        """Open the room, in the loop that runs now."""
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Cancel the coroutines that are still under way, and wait for the threads."""
        for future in list(self._under_way):
            future.cancel()
        await asyncio.to_thread(self._threads.shutdown)

    async def call(self, function: Callable[..., Value], *arguments: Any) -> Value:
        """Call a function that waits in a thread, and let others go on meanwhile."""
        return await self._loop.run_in_executor(self._threads, function, *arguments)

    def await_in_loop(self, coroutine: Coroutine[Any, Any, Value]) -> Value:
        """Return, in a thread of the room, what a coroutine comes to in the room's loop."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        self._under_way.add(future)
        try:
            return future.result()
        finally:
            self._under_way.discard(future)

    def _enter(self) -> None:
        _thread.room = self


async def _awaited(value: Awaitable[Value]) -> Value:
    return await value

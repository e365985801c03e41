"""Methods that wait: coroutines and blocking calls of environments and scorers, and who waits for them."""

import asyncio
import concurrent.futures
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Self, TypeVar

Value = TypeVar("Value")
Other = TypeVar("Other")

_MOST_THREADS = 64  # that blocking calls wait in

_thread = threading.local()  # of a room's thread: the room


def waits(owner: object, *methods: str) -> bool:
    """Tell whether an object says that it waits: it is `blocking`, or it or one of its methods a coroutine function."""
    named = (getattr(owner, name, None) for name in methods)
    return bool(getattr(owner, "blocking", False)) or any(map(inspect.iscoroutinefunction, (owner, *named)))


def each(
    function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], *, blocking: bool
) -> list[Any] | Awaitable[list[Any]]:
    """Call a function once for each tuple of arguments: what waits does so beside the others.

    Args:
        function: May be a coroutine function.
        calls: The arguments.
        blocking: Whether it waits without being one; then it is called in threads.

    Returns:
        What it returned, in order; an awaitable if it waits.
    """
    if blocking:
        return _in_threads(function, list(calls))
    return together([function(*arguments) for arguments in calls])


def together(values: list[Any]) -> list[Any] | Awaitable[list[Any]]:
    """Return values, or, if some are awaitables, one awaitable that waits for all of them at once."""

    async def gathered() -> list[Any]:
        return await asyncio.gather(*map(_awaited, values))

    return gathered() if any(map(inspect.isawaitable, values)) else values


def then(value: Value | Awaitable[Value], function: Callable[[Value], Other]) -> Other | Awaitable[Other]:
    """Return what a function makes of a value, or, awaitable too, of what an awaitable comes to."""

    async def later(value: Awaitable[Value]) -> Other:
        return function(await value)

    return later(value) if inspect.isawaitable(value) else function(value)


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


async def _awaited(value: Value | Awaitable[Value]) -> Value:
    return await value if inspect.isawaitable(value) else value


async def _in_threads(function: Callable[..., Value], calls: list[tuple[Any, ...]]) -> list[Value]:
    async with WaitingRoom(max(1, min(len(calls), _MOST_THREADS))) as room:
        return await asyncio.gather(*(room.call(function, *arguments) for arguments in calls))

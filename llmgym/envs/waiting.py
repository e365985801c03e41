"""Methods that wait: coroutines and blocking calls of environments and scorers, and who waits for them."""

import asyncio
import concurrent.futures
import contextlib
import functools
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Self, TypeVar

from llmgym.errors import said_by

Value = TypeVar("Value")
Other = TypeVar("Other")

_MOST_THREADS = 64  # that blocking calls wait in

_thread = threading.local()  # of a thread of a room: its call


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
        return await asyncio.gather(*map(awaited, values))

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
    if isinstance(value, str) or not inspect.isawaitable(value):  # most are text, and the question takes its time
        return value
    call: _Call | OwnLoop | None = getattr(_thread, "call", None)
    return run(awaited(value)) if call is None else call.await_in_loop(awaited(value))


class OwnLoop:
    """A loop in a thread of its own, which runs as long as the process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="llmgym-loop", daemon=True).start()

    def await_in_loop(self, coroutine: Coroutine[Any, Any, Value]) -> Value:
        """Return, in this thread, what a coroutine comes to in the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def settle_in_own_loop() -> None:
    """From now on have `settled` run the coroutines of this thread in one loop, not in a new one each."""
    _thread.call = OwnLoop()


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

    Whoever no longer wants a call cancels it. A coroutine then ends; a blocking call cannot be ended, so its thread is
    left to itself.

    Args:
        size: How many may wait at once.
        patience: Seconds to wait at the end for threads whose calls were given up.
    """

    def __init__(self, size: int, patience: float = 2.0) -> None:
        self._places = asyncio.Semaphore(size)
        self._patience = patience
        self._calls: set[_Call] = set()

    async def __aenter__(self) -> Self:
        """Open the room, in the loop that runs now."""
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Give up what is still under way, and wait a moment for its threads."""
        calls = list(self._calls)
        for call in calls:
            call.give_up()
        until = time.monotonic() + self._patience
        while any(call.is_alive() for call in calls) and time.monotonic() < until:
            await asyncio.sleep(0.01)

    async def call(self, function: Callable[..., Value], *arguments: Any) -> Value:
        """Call a function that waits in a thread, and let others go on meanwhile."""
        async with self._places:
            call = _Call(self._loop, functools.partial(function, *arguments))
            self._calls.add(call)
            call.start()
            try:
                value: Value = await call.outcome
            except asyncio.CancelledError:
                call.give_up()
                raise
            self._calls.discard(call)
            return value


class _Call(threading.Thread):
    """A call in a thread of its own, which the interpreter does not wait for when it ends."""

    def __init__(self, loop: asyncio.AbstractEventLoop, function: Callable[[], Any]) -> None:
        super().__init__(name="llmgym-waiting", daemon=True)
        self.outcome: asyncio.Future[Any] = loop.create_future()
        self._loop, self._function = loop, function
        self._coroutine: concurrent.futures.Future[Any] | None = None
        self._given_up = False

    def run(self) -> None:
        """Call the function, and hand over what it returns or raises."""
        _thread.call = self
        try:
            value, error = self._function(), None
        except BaseException as raised:  # noqa: BLE001  # it is raised again in the loop
            value, error = None, raised
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, value, error)

    def await_in_loop(self, coroutine: Coroutine[Any, Any, Value]) -> Value:
        """Return, in this thread, what a coroutine comes to in the loop."""
        future = self._coroutine = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        if self._given_up:
            future.cancel()
        value: Value = future.result()
        return value

    def give_up(self) -> None:
        """Cancel the coroutine that it waits for, if it does."""
        self._given_up = True
        if self._coroutine is not None:
            self._coroutine.cancel()

    def _settle(self, value: Any, error: BaseException | None) -> None:
        if self.outcome.done():  # cancelled
            return
        if error is None:
            self.outcome.set_result(value)
        else:
            self.outcome.set_exception(_for_the_loop(error))


async def awaited(value: Value | Awaitable[Value]) -> Value:
    """Return a value, or what an awaitable comes to.

    What user code raises to end a program or a task would end the loop and everybody in it, so it becomes an error.
    """
    if not inspect.isawaitable(value):
        return value
    try:
        return await value
    except (Exception, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and _is_cancelled():
            raise
        raise _for_the_loop(error) from error


def _is_cancelled() -> bool:
    """Tell whether somebody else cancelled the task that runs."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _for_the_loop(error: BaseException) -> BaseException:
    """Return an exception that a loop can hand on: no future takes StopIteration, and SystemExit would end the loop."""
    hands_on = isinstance(error, Exception | KeyboardInterrupt) and not isinstance(error, StopIteration)
    return error if hands_on else RuntimeError(said_by(error))


async def _in_threads(function: Callable[..., Value], calls: list[tuple[Any, ...]]) -> list[Value]:
    async with WaitingRoom(max(1, min(len(calls), _MOST_THREADS))) as room:
        return await asyncio.gather(*(room.call(function, *arguments) for arguments in calls))

"""`Pool`: several workers, each of which answers one message at a time, and is replaced when it has failed."""

import contextlib
import queue
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self, TypeVar

from llmgym.workers import frames
from llmgym.workers.worker import MEMORY, Forker, Worker, WorkerError

Value = TypeVar("Value")
Other = TypeVar("Other")

_MOST_AT_ONCE = 32  # messages for a worker
_BUFFERED = 2**16  # bytes of them, which a socket takes while nobody reads


class Pool:
    """Workers that answer messages.

    Args:
        handler: ``"module:function"``, which is given a message and returns its answer, both as JSON has them.
        size: The number of workers.
        limit: Seconds that an answer may take.
        first: Message that is answered before workers are forked, such as what to import; {"error": why} is the answer
            if it is not possible.
        memory: Bytes that a worker may take beyond what it has at its start.
        log: File to append what workers print to; None for nowhere.

    Raises:
        ConfigError: It cannot do what the first message says.

    Example:
        >>> with Pool("json:loads", size=1, limit=5.0, first="{}") as pool:
        ...     pool.submit("[1, 2]").result()
        [1, 2]
    """

    def __init__(
        self,
        handler: str,
        *,
        size: int,
        limit: float,
        first: Any = None,
        memory: int = MEMORY,
        log: Path | None = None,
    ) -> None:
        self._size, self._limit = size, limit
        self._forker = Forker(handler, first, memory, log)
        self._free: queue.LifoQueue[Worker | None] = queue.LifoQueue()  # None: one that has to be forked
        for _ in range(size):
            self._free.put(None)
        self._threads = _Threads(size)
        self._close = weakref.finalize(self, _end, self._forker, self._threads)

    def submit(self, message: Any) -> "Future[Any]":
        """Ask for the answer to a message, which is a `WorkerError` if there is none."""
        return self._threads.submit(self._answer, frames.packed(message))

    def submit_all(self, messages: Sequence[Any]) -> "list[Future[list[Any]]]":
        """Ask for the answers to messages, several of which are handed to a worker at once.

        Returns:
            The answers in order, in batches. Where there is none, the `WorkerError` is in its place.
        """
        return [self._threads.submit(self._answers, batch) for batch in self._batches(messages)]

    def close(self) -> None:
        """End all workers; what they have not answered yet is an error."""
        self._close()

    def __enter__(self) -> Self:
        """Use the pool for a while."""
        return self

    def __exit__(self, *error: object) -> None:
        """End all workers."""
        self.close()

    def _batches(self, messages: Sequence[Any]) -> Iterator[list[bytes]]:
        """Yield messages as they are sent, in batches that a worker takes at once, enough of them for all workers."""
        most = max(1, min(_MOST_AT_ONCE, len(messages) // self._size))
        batch, length = list[bytes](), 0
        for message in map(frames.packed, messages):
            if batch and (len(batch) == most or length + len(message) > _BUFFERED):
                yield batch
                batch, length = [], 0
            batch.append(message)
            length += len(message)
        if batch:
            yield batch

    def _answer(self, message: bytes) -> Any:
        (answer,) = self._answers([message])
        if isinstance(answer, WorkerError):
            raise answer
        return answer

    def _answers(self, messages: Sequence[bytes]) -> list[Any]:
        answers: list[Any] = []
        worker = self._free.get()
        try:
            while len(answers) < len(messages):
                try:
                    worker = self._forker.fork() if worker is None else worker
                    worker.send(messages[len(answers) :], self._limit)
                    while len(answers) < len(messages):
                        answers.append(worker.receive(self._limit))
                except WorkerError as error:
                    worker = None
                    answers.append(error)
        finally:
            self._free.put(worker)
        return answers


def _end(forker: Forker, threads: "_Threads") -> None:
    threads.close()
    forker.close()


class _Threads:
    """Threads that the interpreter does not wait for when it ends, unlike those of `concurrent.futures`.

    Args:
        size: How many.
    """

    def __init__(self, size: int) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._size = size
        for _ in range(size):
            threading.Thread(target=_serve, args=(self._calls,), name="llmgym-worker", daemon=True).start()

    def submit(self, function: Callable[[Value], Other], value: Value) -> "Future[Other]":
        """Call a function in one of them."""
        future: Future[Other] = Future()
        self._calls.put((future, lambda: function(value)))
        return future

    def close(self) -> None:
        """End them; calls that have not begun are cancelled."""
        with contextlib.suppress(queue.Empty):
            while call := self._calls.get_nowait():
                call[0].cancel()
        for _ in range(self._size):
            self._calls.put(None)


def _serve(calls: "queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]") -> None:
    while call := calls.get():
        future, function = call
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001  # it is raised where the result is asked for
                future.set_exception(error)

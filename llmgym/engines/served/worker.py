"""`Worker`: one server, wherever it runs, and whether it still does."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, TypeVar

from llmgym.engines.served.dialect import Dialect, Facts, TransientError, WorkerLostError
from llmgym.engines.served.limits import Limits
from llmgym.engines.served.weights import Weights

T = TypeVar("T")


class Worker(ABC):
    """One server, or what samples like one in this process: started, asked, given weights, watched.

    All methods run in one event loop. Whatever waits for an answer is ended by
    `WorkerLostError` as soon as `watch` says that none will come.

    Args:
        dialect: How to speak to it.
        limits: What it may take.

    Attributes:
        name: What messages call it.
        facts: What it says about itself; known once it is started.
    """

    name: str
    facts: Facts

    def __init__(self, dialect: Dialect, limits: Limits = Limits()) -> None:  # noqa: B008 - it never changes
        self.dialect, self.limits = dialect, limits
        self._watching: asyncio.Task[None] | None = None
        self._loss: str | None = "it is not running"
        self._waiting: set[asyncio.Future[Any]] = set()

    async def start(self) -> None:
        """Start it, or start it again, and wait until it answers.

        Raises:
            EngineError: It does not fit: a version that is too old, a wrong key, an option it does not know.
            WorkerLostError: It ended, or did not answer in time.
        """
        await self.stop()
        await self.launch()
        self._loss = None
        self._watching = asyncio.get_running_loop().create_task(self._end_waiting())
        try:
            self.facts = await self.until_lost(self.limits.patiently(self._facts))
        except TransientError as error:
            raise WorkerLostError(str(error)) from error

    async def _facts(self) -> Facts:
        return self.dialect.facts(await self.info(), self.name)

    async def stop(self) -> None:
        """End it if it is ours, and stop watching it."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching, self._loss = None, "it was stopped"
        await self.shut_down()

    async def generate(self, rid: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one request, known by `rid`.

        Raises:
            EngineError: The request is not allowed.
            TransientError: It came to nothing and may be sent again.
            WorkerLostError: It is gone.
        """
        return await self.until_lost(self.answer(rid, payload))

    async def until_lost(self, answer: Awaitable[T]) -> T:
        """Wait for an answer, or for the news that there will be none."""
        task = asyncio.ensure_future(answer)
        self._waiting.add(task)
        if self._loss is not None:
            task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if self._loss is None or (current is not None and current.cancelling()):
                raise
            raise WorkerLostError(self._loss) from None
        finally:
            self._waiting.discard(task)

    async def _end_waiting(self) -> None:
        self._loss = await self.watch()
        for task in self._waiting:
            task.cancel()

    @abstractmethod
    async def launch(self) -> None:
        """Start it and wait until it is up."""

    @abstractmethod
    async def shut_down(self) -> None:
        """End what was launched; nothing may be left of it."""

    @abstractmethod
    async def watch(self) -> str:
        """Return, once it is gone, how that was noticed."""

    @abstractmethod
    async def info(self) -> Mapping[str, Any]:
        """Return what it says about itself."""

    @abstractmethod
    async def answer(self, rid: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Ask it."""

    @abstractmethod
    def is_stale(self, reply: Mapping[str, Any], weights: Weights | None) -> bool:
        """Whether a reply comes from other weights than these; None stands for those it was started with."""

    @abstractmethod
    async def abort(self, rids: Iterable[str]) -> None:
        """Drop requests."""

    @abstractmethod
    async def load(self, weights: Weights) -> None:
        """Empty the cache, check that it is empty, and replace the weights.

        Raises:
            WorkerLostError: It did not work; nobody knows which weights it has.
        """

    @abstractmethod
    async def release_memory(self) -> None:
        """Give the accelerator's memory, weights and cache, back until `resume_memory`."""

    @abstractmethod
    async def resume_memory(self) -> None:
        """Take the memory again; what was in it is lost."""

"""`InProcess`: `sglang.Engine` as a part of this process, its schedulers as child processes."""

import asyncio
import atexit
import multiprocessing
import signal
import threading
from collections.abc import Coroutine, Iterable, Mapping
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from llmgym.engines.served.dialect import TransientError, WorkerLostError, refused, succeeded
from llmgym.engines.served.weights import Weights
from llmgym.engines.served.worker import Worker
from llmgym.engines.sglang.dialect import SGLang
from llmgym.errors import EngineError

T = TypeVar("T")

_LOOK_EVERY = 0.5  # seconds between looks at the child processes
_FLUSH_TRIES = 60  # half a second apart: a request that was aborted may still be under way


# Engines whose processes have ended. They are never collected: ZeroMQ would wait, for ever, until what was
# under way to those processes is delivered. At the end of the program it does not.
_ended: list[Any] = []


class InProcess(Worker):
    """An `sglang.Engine`. Weights go to it as tensors, without a file between.

    It has to be made in the main thread: SGLang sends SIGQUIT to this process when a child
    of it fails, and only there can a handler keep that from ending the run.

    Args:
        model_path: The directory or hub name of the weights to start with.
        options: Arguments of `sglang.Engine`.

    Raises:
        EngineError: SGLang is not installed or too old, or this is not the main thread.
    """

    name = "the embedded SGLang"

    def __init__(self, model_path: str, options: Mapping[str, Any]) -> None:
        super().__init__(SGLang())
        self.dialect.require_installed()
        if threading.current_thread() is not threading.main_thread():
            raise EngineError("Expected the main thread, which alone handles signals, to make an embedded SGLang.")
        signal.signal(signal.SIGQUIT, _outlive)
        self._options = {"model_path": model_path, "log_level": "error", **options}
        self._engine: Any = None
        self._children: list[BaseProcess] = []

    async def launch(self) -> None:
        """Make the engine, in this thread: its children end when the thread that made them does."""
        import sglang  # half a minute to import, and only in the thread that runs it

        others = multiprocessing.active_children()
        try:
            self._engine = sglang.Engine(**self._options)
        except TypeError as error:  # an option that it does not have
            raise refused(self.name, error) from error
        except (Exception, SystemExit) as error:
            raise WorkerLostError(f"it does not start: {type(error).__name__}: {error}") from error
        finally:
            self._children = [child for child in multiprocessing.active_children() if child not in others]
        # Its own shutdown, which would run at exit, ends every child of this process, ours and others'.
        atexit.unregister(self._engine.shutdown)
        self._engine.loop = _Elsewhere(self, asyncio.get_running_loop())

    async def shut_down(self) -> None:
        """End the child processes."""
        watchdog = getattr(getattr(self._engine, "tokenizer_manager", None), "_subprocess_watchdog", None)
        if watchdog is not None:
            watchdog.stop()  # it would report their end as a crash
        for child in self._children:
            child.kill()
        for child in self._children:
            child.join()
        if self._engine is not None:
            _ended.append(self._engine)
        self._children, self._engine = [], None

    async def watch(self) -> str:
        """Look whether all child processes run."""
        while all(child.is_alive() for child in self._children):
            await asyncio.sleep(_LOOK_EVERY)
        ended = [f"{child.pid} (exit code {child.exitcode})" for child in self._children if not child.is_alive()]
        return f"its process {', '.join(ended)} ended"

    async def info(self) -> Mapping[str, Any]:
        """Return what the engine says about itself."""
        info: Mapping[str, Any] = await asyncio.to_thread(self._engine.get_server_info)
        return info

    async def answer(self, rid: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the engine."""
        try:
            reply: dict[str, Any] = await self._engine.async_generate(rid=rid, **payload)
        except ValueError as error:
            raise refused(self.name, error) from error
        except Exception as error:  # of its HTTP framework's type, although there is no HTTP
            raise TransientError(f"{type(error).__name__}: {error}") from error
        return reply

    def is_stale(self, reply: Mapping[str, Any], weights: Weights | None) -> bool:
        """Never: nobody else can reach this engine, and it takes weights only while nothing is under way."""
        return False

    async def abort(self, rids: Iterable[str]) -> None:
        """Drop requests."""
        for rid in rids:
            self._engine.tokenizer_manager.abort_request(rid)

    async def load(self, weights: Weights) -> None:
        """Hand the tensors over, a bucket at a time. Nothing has to be paused: only we send requests."""
        await self.until_lost(asyncio.to_thread(self._load, self._engine, weights))

    def _load(self, engine: Any, weights: Weights) -> None:
        for _ in range(_FLUSH_TRIES):
            if engine.flush_cache().success:
                break
            threading.Event().wait(_LOOK_EVERY)
        else:
            raise WorkerLostError("its cache cannot be flushed")
        has_sessions = hasattr(engine, "begin_weight_update")  # later versions want to know where an update ends
        if has_sessions:
            succeeded("begin_weight_update", *_verdict(engine.begin_weight_update()))
        for bucket in weights.buckets():
            succeeded("update_weights_from_tensor", *_verdict(engine.update_weights_from_tensor(bucket)))
        if has_sessions:
            succeeded("end_weight_update", *_verdict(engine.end_weight_update()))

    async def release_memory(self) -> None:
        """Release weights and cache."""
        await self.until_lost(asyncio.to_thread(self._engine.release_memory_occupation))

    async def resume_memory(self) -> None:
        """Take the memory again."""
        await self.until_lost(asyncio.to_thread(self._engine.resume_memory_occupation))


class _Elsewhere:
    """The event loop as `sglang.Engine`'s blocking methods want it: they drive it themselves.

    The loop runs in its own thread all the time; a method called in another thread has its
    coroutine run there, and is not left waiting when the engine is lost.
    """

    def __init__(self, worker: InProcess, loop: asyncio.AbstractEventLoop) -> None:
        self._worker, self._loop = worker, loop

    def run_until_complete(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(self._worker.until_lost(coroutine), self._loop).result()


def _verdict(answer: Any) -> tuple[bool, str]:
    """Read the answer of a weight update: a pair, or an object with the same two parts."""
    success, message = answer if isinstance(answer, tuple) else (answer.success, answer.message)
    return bool(success), str(message)


def _outlive(signum: int, frame: object) -> None:
    """Do nothing: a lost engine is noticed by `InProcess.watch` and started again."""

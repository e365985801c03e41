"""`InProcess`: `sglang.Engine` as a part of this process, its schedulers as child processes."""

import asyncio
import atexit
import multiprocessing
import signal
import threading
import time
from collections.abc import Coroutine, Iterable, Mapping
from concurrent.futures import Future
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
_LOOK_EVERY_START = 0.05  # the same while it starts: whoever ends between two looks is not seen
_NOTICED_WITHIN = 30.0  # seconds after its processes were ended, for a start to fail


# Engines whose processes have ended, and what their starts raised. They are never collected: ZeroMQ would wait, for
# ever, until what was under way to those processes is delivered. At the end of the program it does not.
_ended: list[Any] = []


class InProcess(Worker):
    """An `sglang.Engine`. Weights go to it as tensors, without a file between.

    It has to be made in the main thread: SGLang sends SIGQUIT to this process when a child
    of it fails, and only there can a handler keep that from ending the run.

    Args:
        model_path: The directory or hub name of the weights to start with.
        options: Arguments of `sglang.Engine`.
        patience: Seconds that it may take to start.

    Raises:
        EngineError: SGLang is not installed or too old, or this is not the main thread.
    """

    name = "the embedded SGLang"

    def __init__(self, model_path: str, options: Mapping[str, Any], patience: float = 1800.0) -> None:
        super().__init__(SGLang())
        self.dialect.require_installed()
        if threading.current_thread() is not threading.main_thread():
            raise EngineError("Expected the main thread, which alone handles signals, to make an embedded SGLang.")
        signal.signal(signal.SIGQUIT, _outlive)
        self._options = {"model_path": model_path, "log_level": "error", **options}
        self._patience = patience
        self._engine: Any = None
        self._children: list[BaseProcess] = []
        self._over = threading.Event()

    async def launch(self) -> None:
        """Make the engine in a thread of its own; a process that ends over it, or too much time, ends it."""
        others, until = multiprocessing.active_children(), time.monotonic() + self._patience
        made: Future[Any] = Future()
        made.set_running_or_notify_cancel()  # from now on nobody can cancel it, only no longer wait
        self._over = threading.Event()
        threading.Thread(target=self._make, args=(made, self._over), name="sglang", daemon=True).start()
        making, problem = asyncio.wrap_future(made), None
        while problem is None and not making.done():
            await asyncio.wait([making], timeout=_LOOK_EVERY_START)
            found = {*self._children, *multiprocessing.active_children()}.difference(others)
            self._children = [child for child in found if child.exitcode != 0]  # some are there to look at something
            problem = self._ending()
            if problem is None and time.monotonic() > until:
                problem = f"it did not start within {self._patience:.0f} s"
        if problem is not None:
            self._kill()
            await asyncio.wait([making], timeout=_NOTICED_WITHIN)
            raise WorkerLostError(problem)
        try:
            self._engine = making.result()
        except TypeError as error:  # an option that it does not have
            raise refused(self.name, error) from error
        except (Exception, SystemExit) as error:
            raise WorkerLostError(f"it does not start: {type(error).__name__}: {error}") from error
        self._engine.loop = _Elsewhere(self, asyncio.get_running_loop())

    def _make(self, made: "Future[Any]", over: threading.Event) -> None:
        """Make the engine, and wait until it is over: its processes end when the thread that made them does."""
        engine: Any = None
        try:
            from sglang.srt.entrypoints.engine import Engine  # half a minute to import, and only where it runs

            engine = Engine.__new__(Engine)
            engine.__init__(**self._options)
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits
            _ended.append(error)  # with what it was about to make, such as sockets
            made.set_exception(error)
        else:
            made.set_result(engine)
        if engine is not None:  # its own shutdown, at exit, would end every child of this process, ours and others'
            atexit.unregister(engine.shutdown)
        over.wait()

    async def shut_down(self) -> None:
        """End the child processes."""
        watchdog = getattr(getattr(self._engine, "tokenizer_manager", None), "_subprocess_watchdog", None)
        if watchdog is not None:
            watchdog.stop()  # it would report their end as a crash
        self._kill()
        self._over.set()
        if self._engine is not None:
            _ended.append(self._engine)
        self._children, self._engine = [], None

    def _kill(self) -> None:
        for child in self._children:
            child.kill()
        for child in self._children:
            child.join()

    def _ending(self) -> str | None:
        ended = [f"{child.pid} (exit code {child.exitcode})" for child in self._children if not child.is_alive()]
        return f"its process {', '.join(ended)} ended" if ended else None

    async def watch(self) -> str:
        """Look whether all child processes run."""
        while (problem := self._ending()) is None:
            await asyncio.sleep(_LOOK_EVERY)
        return problem

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

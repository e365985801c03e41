"""`ServedEngine`: any number of servers behind the engine protocol."""

import asyncio
import atexit
import logging
import queue
import secrets
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llmgym.directories import OwnDirectory
from llmgym.engines.base import Completion, GenerationRequest, require_room
from llmgym.engines.served.dialect import FaultyAnswerError, TransientError, WorkerLostError
from llmgym.engines.served.limits import Limits
from llmgym.engines.served.loop import LoopThread
from llmgym.engines.served.weights import Weights
from llmgym.engines.served.worker import Worker
from llmgym.engines.stop_strings import cut
from llmgym.errors import EngineError

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)


class _Seat:
    """A worker and what the engine knows about it.

    Attributes:
        running: The ids of the requests that it answers now.
        start: Which of its starts this is: the requests of an earlier one tell of an earlier loss.
        recovery: The task that starts it again; None if it is up or given up.
        loss: Why it was lost the last time.
        faults: The faulty answers that it gave.
        faults_in_a_row: Those since the last answer that was none.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.running: set[str] = set()
        self.up = True
        self.start = 0
        self.recovery: asyncio.Task[None] | None = None
        self.loss = ""
        self.faults = self.faults_in_a_row = 0


class ServedEngine:
    """Samples with workers: servers of our own, servers given by URL, or what samples like one in this process.

    A new episode goes to the worker with the fewest requests under way, and stays there, so
    that its next turn finds its keys and values in that worker's cache. A worker that
    is lost is started again with the current weights, and what it had not finished is sent
    again, wherever there is room; a message says so. A request that came to nothing or was
    answered with what cannot be right is sent again too, if possible elsewhere.

    What seeds and log-probabilities mean is up to the servers; their `Dialect` says it.

    Args:
        workers: Who samples; they are started here.
        context_length: Tokens of prompt and reply that fit; as many as the workers take if None.
        directory: Where weights are written for servers to read; a temporary one if None.
            Servers on other machines need one that they see too.
        text_of: Returns the text of some of a reply's tokens. With it a reply ends at the token
            that completes a stop string, past which servers may sample.
        vocabulary: How many tokens there are; a reply with others is faulty. None: not known.
        restarts: How often workers that were lost are started again, all together.
        limits: How often requests are sent again, and when faulty answers are too many.
        notify: Is given a sentence when a worker is lost or back.

    Raises:
        EngineError: A worker does not start or does not fit.
    """

    counts_log_probs: Literal[True] = True

    def __init__(
        self,
        workers: Sequence[Worker],
        *,
        context_length: int | None = None,
        directory: Path | None = None,
        text_of: Callable[[Sequence[int]], str] | None = None,
        vocabulary: int | None = None,
        restarts: int = 10,
        limits: Limits = Limits(),  # noqa: B008 - it never changes
        notify: Callable[[str], object] = _log.warning,
    ) -> None:
        self.weight_version = 0
        self._vocabulary, self._restarts, self._limits = vocabulary, restarts, limits
        self._text_of = text_of
        self._notify = notify
        self._run = secrets.token_hex(4)  # no other run calls its weights by the same name
        self._directory = OwnDirectory("llmgym-weights-", directory)
        self._weights: Weights | None = None
        self._seats = [_Seat(worker) for worker in workers]
        self._home: dict[int, _Seat] = {}  # by episode
        self._done: queue.SimpleQueue[Completion | Exception] = queue.SimpleQueue()
        self._unfinished = 0
        self._tell: Callable[[], object] = lambda: None
        self._requests: set[asyncio.Task[None]] = set()
        self._lent = self._closing = False
        self._thread = LoopThread()
        atexit.register(self.close)
        try:
            self._thread.run(self._start())
        except BaseException:
            self.close()
            raise
        fits = min(seat.worker.facts.context_length for seat in self._seats)
        self.context_length = min(context_length or fits, fits)

    # The protocol.

    def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Take requests.

        Raises:
            ContextOverflowError: A prompt leaves no room for a single token.
            EngineError: A stop string is asked of a server without a tokenizer.
        """
        for request in requests:
            require_room(request, self.context_length)
            for worker in (seat.worker for seat in self._seats if request.sampling.stop):
                if worker.facts.no_strings:
                    raise EngineError(
                        f"Stop strings need a tokenizer, which {worker.name} has not: {worker.facts.no_strings}."
                    )
        self._unfinished += len(requests)
        self._thread.loop.call_soon_threadsafe(self._begin, list(requests), self._done)

    def wait(self) -> list[Completion]:
        """Return what has finished, at least one completion; [] only if nothing is under way.

        Raises:
            EngineError: A request cannot be answered, or no worker is left.
        """
        if not self._unfinished:
            return []
        return [self._next(), *self.poll()]

    def poll(self) -> list[Completion]:
        """Return what has finished, at once.

        Raises:
            EngineError: See `wait`.
        """
        finished = []
        while not self._done.empty():
            finished.append(self._next())
        return finished

    def on_finished(self, tell: Callable[[], object]) -> None:
        """Have `tell` called whenever `poll` has something new."""
        self._tell = tell

    def abort(self) -> None:
        """Drop every request and forget every episode."""
        self._done, self._unfinished = queue.SimpleQueue(), 0
        self._thread.run(self._abort())

    def release(self, episode_ids: Iterable[int]) -> None:
        """Forget where episodes were sampled; their caches drop on their own what is not used."""
        for episode in episode_ids:
            self._home.pop(episode, None)

    def load_weights(self, weights: Iterable[tuple[str, "Tensor"]], version: int) -> None:
        """Sample with these weights from now on.

        Raises:
            EngineError: No worker takes them.
        """
        assert not self._unfinished, "weights change only while nothing is under way"
        replaced = self._weights
        self._weights = Weights(weights, version, f"{self._run}-{version}-{secrets.token_hex(2)}", self._directory.path)
        self.weight_version = version
        self._thread.run(self._load(self._weights))
        if replaced is not None:
            replaced.discard()

    def lend_memory(self) -> None:
        """Give the accelerator's memory to the learner until `load_weights`."""
        self._lent = True
        self._thread.run(self._each(lambda worker: worker.release_memory()))

    def close(self) -> None:
        """End the workers that are ours, and remove what was written for them."""
        if self._thread.loop.is_closed():
            return
        atexit.unregister(self.close)
        self._closing = True
        self._thread.run(self._stop())
        self._thread.close()
        self._directory.remove()

    def _next(self) -> Completion:
        result = self._done.get()
        self._unfinished -= 1
        if isinstance(result, Exception):
            raise result
        return result

    # What runs in the event loop.

    async def _start(self) -> None:
        async def start(worker: Worker) -> None:
            try:
                await worker.start()
            except WorkerLostError as error:
                raise EngineError(f"Expected {worker.name} to start: {error}") from error

        await asyncio.gather(*(start(seat.worker) for seat in self._seats))

    async def _stop(self) -> None:
        tasks = [*self._requests, *(seat.recovery for seat in self._seats if seat.recovery is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(seat.worker.stop() for seat in self._seats))

    def _begin(self, requests: list[GenerationRequest], done: "queue.SimpleQueue[Completion | Exception]") -> None:
        for request in requests:
            task = asyncio.get_running_loop().create_task(self._answer(request, done))
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)

    async def _answer(self, request: GenerationRequest, done: "queue.SimpleQueue[Completion | Exception]") -> None:
        try:
            done.put(await self._complete(request))
        except Exception as error:  # noqa: BLE001 - `wait` and `poll` raise it where somebody listens
            done.put(error)
        self._tell()

    async def _complete(self, request: GenerationRequest) -> Completion:
        """Have one request answered, by as many workers as it takes."""
        failed: Counter[_Seat] = Counter()
        while True:
            seat = await self._seat_for(request.episode_id, failed)
            rid, start = uuid.uuid4().hex, seat.start
            seat.running.add(rid)
            try:
                completion = await self._ask(seat.worker, rid, request)
                seat.faults_in_a_row = 0
                return completion
            except WorkerLostError as error:
                self._lose(seat, start, str(error))
            except TransientError as error:
                if isinstance(error, FaultyAnswerError):
                    self._count_fault(seat, start, error)
                failed[seat] += 1
                if (attempts := failed.total()) >= self._limits.attempts:
                    raise EngineError(
                        f"{seat.worker.name} gave no answer to a request that was sent {attempts} times: {error}"
                    ) from error
                await self._limits.pause(attempts, error.retry_after)
            finally:
                seat.running.discard(rid)

    async def _ask(self, worker: Worker, rid: str, request: GenerationRequest) -> Completion:
        """Have one worker answer a request, and check what it answers."""
        reply = await worker.generate(rid, worker.dialect.payload(request))
        completion = worker.dialect.completion(request, reply, self.weight_version)
        if self._vocabulary is not None and (largest := max(completion.tokens)) >= self._vocabulary:
            raise FaultyAnswerError(f"Expected tokens below {self._vocabulary}, the vocabulary's size, got {largest}.")
        if request.sampling.stop and self._text_of is not None:
            completion = cut(completion, request.sampling.stop, self._text_of)
        if worker.is_stale(reply, self._weights):
            raise WorkerLostError("it answered with other weights than it was given")
        return completion

    def _count_fault(self, seat: _Seat, start: int, fault: FaultyAnswerError) -> None:
        """Tell of a faulty answer, if it is the 1st, 10th, 100th and so on; too many in a row, and a worker is lost."""
        seat.faults += 1
        seat.faults_in_a_row += 1
        if set(str(seat.faults)[1:]) <= {"0"} and str(seat.faults)[0] == "1":
            self._notify(
                f"{seat.worker.name} gave an answer that cannot be right, the {seat.faults}. of the run: {fault} "
                "The request is sent again."
            )
        if seat.faults_in_a_row >= self._limits.faults:
            self._lose(seat, start, f"its last {seat.faults_in_a_row} answers cannot be right: {fault}")

    async def _seat_for(self, episode: int, failed: Counter[_Seat]) -> _Seat:
        """Return the worker of an episode; a new one goes where least is under way, a request that failed elsewhere."""
        while True:
            up = [seat for seat in self._seats if seat.up]
            if up:
                fewest = min(failed[seat] for seat in up)
                home = self._home.get(episode)
                if home is None or not home.up or failed[home] > fewest:
                    fit = (seat for seat in up if failed[seat] == fewest)
                    home = self._home[episode] = min(fit, key=lambda seat: len(seat.running))
                return home
            await self._wait_for_recovery()

    async def _wait_for_recovery(self) -> None:
        recoveries = [seat.recovery for seat in self._seats if seat.recovery is not None]
        if not recoveries:
            causes = "; ".join(f"{seat.worker.name}: {seat.loss}" for seat in self._seats)
            raise EngineError(f"No server is left: every one was lost and could not be started again ({causes:.1000}).")
        await asyncio.wait(recoveries, return_when=asyncio.FIRST_COMPLETED)

    def _lose(self, seat: _Seat, start: int, reason: str) -> None:
        """Begin to start a worker again, once for all requests that tell of the same loss."""
        if self._closing or not seat.up or seat.start != start:
            return
        seat.up, seat.loss = False, reason
        self._notify(
            f"Lost {seat.worker.name}: {reason}. It is started again with version {self.weight_version} "
            f"of the weights; {len(seat.running)} unfinished requests are sent again."
        )
        seat.recovery = asyncio.get_running_loop().create_task(self._recover(seat))

    async def _recover(self, seat: _Seat) -> None:
        try:
            attempt = 0
            while self._restarts > 0:
                self._restarts -= 1
                attempt += 1
                try:
                    await seat.worker.start()
                    if self._weights is not None:
                        await seat.worker.load(self._weights)
                except WorkerLostError as error:
                    seat.loss = str(error)
                    self._notify(f"Attempt {attempt} to start {seat.worker.name} again failed: {error}.")
                    await self._limits.pause(attempt)
                except EngineError as error:
                    seat.loss = str(error)
                    self._notify(str(error))
                    break
                else:
                    seat.start += 1
                    seat.up, seat.faults_in_a_row = True, 0
                    self._notify(f"{seat.worker.name} is back.")
                    return
            self._notify(f"Gave up {seat.worker.name}: {self._restarts} restarts are left.")
        finally:
            seat.recovery = None

    async def _abort(self) -> None:
        await asyncio.gather(*(seat.worker.abort(set(seat.running)) for seat in self._seats if seat.up))
        tasks = list(self._requests)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._home.clear()

    async def _load(self, weights: Weights) -> None:
        lent, self._lent = self._lent, False

        async def give(worker: Worker) -> None:
            if lent:
                await worker.resume_memory()
            await worker.load(weights)

        await self._each(give)
        while recoveries := [seat.recovery for seat in self._seats if seat.recovery is not None]:
            await asyncio.wait(recoveries)
        if not any(seat.up for seat in self._seats):
            await self._wait_for_recovery()

    async def _each(self, act: Callable[[Worker], Coroutine[None, None, None]]) -> None:
        """Do something with every worker that is up; one that is lost over it is started again."""

        async def attempt(seat: _Seat) -> None:
            start = seat.start
            try:
                await act(seat.worker)
            except (WorkerLostError, TransientError) as error:
                self._lose(seat, start, str(error))

        await asyncio.gather(*(attempt(seat) for seat in self._seats if seat.up))

"""`Dispatcher`: between coroutines that each ask for one reply, and an engine that samples many at once."""

import asyncio
import contextlib
from collections.abc import Callable

from llmgym.engines.base import ChangesInFlight, Completion, Engine, GenerationRequest, Polls, SamplesElsewhere
from llmgym.errors import StaleCompletionError
from llmgym.rollout.stopwatch import Stopwatch


class Dispatcher:
    """Hands requests to an engine and replies back.

    The engine samples only when no coroutine can move, so that what they ask for is sampled together. One that waits
    for something else, an environment's answer say, is not waited for: the others' replies are sampled meanwhile.
    While an engine samples elsewhere, in a server say, coroutines move and ask for more.

    Args:
        engine: Who samples. Nobody else asks it for replies meanwhile.
        watch: Is told how long it samples, or nobody can move.
    """

    def __init__(self, engine: Engine, watch: Stopwatch) -> None:
        self._engine, self._watch = engine, watch
        self._changes_in_flight = isinstance(engine, ChangesInFlight)
        self._asked: list[GenerationRequest] = []
        self._over: list[int] = []
        self._replies: dict[int, asyncio.Future[Completion]] = {}  # by request
        self._moved = asyncio.Event()
        self._moves = 0

    async def generate(self, request: GenerationRequest) -> Completion:
        """Return the reply to a request."""
        reply: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._replies[request.request_id] = reply
        self._asked.append(request)
        self._move()
        return await reply

    def release(self, episode_id: int) -> None:
        """Let the engine forget an episode that is over."""
        self._over.append(episode_id)
        self._move()

    async def serve(self) -> None:
        """Have replies sampled until cancelled."""
        if elsewhere := isinstance(self._engine, SamplesElsewhere):
            self._engine.on_finished(self._waker())
        while True:
            await self._nobody_moves()
            with self._watch.during("generation"):
                if self._asked or self._over:
                    self._engine.submit(self._asked)
                    self._engine.release(self._over)
                    self._asked, self._over = [], []
                completions = self._completions() if self._replies else []
            for completion in completions:
                self._check_version(completion)
                self._replies.pop(completion.request_id).set_result(completion)
            if not self._replies or (elsewhere and not completions):
                self._moved.clear()
                with self._watch.during("generation" if self._replies else "waiting"):
                    await self._moved.wait()

    def _completions(self) -> list[Completion]:
        return self._engine.poll() if isinstance(self._engine, Polls) else self._engine.wait()

    def _waker(self) -> Callable[[], None]:
        """Return what wakes `serve` from any thread."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._moved.set)

        return wake

    async def _nobody_moves(self) -> None:
        """Return when every coroutine waits: for a reply, or for something outside."""
        moves = -1
        while moves != self._moves:
            moves = self._moves
            await asyncio.sleep(0)

    def _move(self) -> None:
        self._moves += 1
        self._moved.set()

    def _check_version(self, completion: Completion) -> None:
        """Weights change between rollouts, so a reply of others is the engine's fault; unless they change in flight."""
        version = self._engine.weight_version
        older = completion.weight_version < version
        if completion.weight_version != version and not (older and self._changes_in_flight):
            raise StaleCompletionError(
                f"The engine has weights of version {version}, but a reply of episode "
                f"{completion.request_id} was sampled by version {completion.weight_version}. Stale replies are never "
                "trained on; the rollout ends here."
            )

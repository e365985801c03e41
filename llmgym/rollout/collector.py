"""`Collector`: many episodes at once, each a coroutine."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from llmgym.config.sections import Sampling
from llmgym.engines.base import Engine
from llmgym.envs.faults import EpisodeLostError
from llmgym.envs.tools import Schemas
from llmgym.envs.vector import StepResult, TextVectorEnv
from llmgym.envs.waiting import WaitingRoom, run
from llmgym.errors import ContextOverflowError, EnvironmentContractError, EnvironmentFailedError
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.dispatcher import Dispatcher
from llmgym.rollout.play import Play
from llmgym.rollout.scoring import Scoring, episode_of
from llmgym.rollout.trajectory import Trajectory
from llmgym.scorers.asking import AnyScorer
from llmgym.types import Message


@dataclass(frozen=True, slots=True)
class Task:
    """What one episode is about.

    Attributes:
        seed: The seed of its environment.
        group: Episodes of one group have the same seed and have to see the same first observation.
    """

    seed: int
    group: int


_FEW = 20  # a share of fewer says little
_NONE_OF = 4  # but none of so many says enough

_CUT_OFF = {"context": "the episode outgrew the context", "max_tokens": "the episode used its tokens up"}


class Collector:
    """Plays episodes: environments on one side, an engine on the other.

    Every episode is a coroutine (`llmgym.rollout.play`), and there is no barrier between turns or
    groups: a slow episode delays nobody. Where there are more tasks than environments, an
    environment that is free takes the next task.

    An environment whose `begin`, `respond` or `score` is a coroutine, or that says that it is
    `blocking`, waits beside the others; all others are stepped at once.

    A task whose first observation leaves no room for a reply gives an episode without replies
    and without a score, which ends as one that outgrew the context does.

    An environment that raises an exception, or takes longer than its `step_timeout`, ends its
    own episode without a score and no other one. A new one takes its place.

    Args:
        envs: The environments.
        codec: Turns their texts into tokens.
        engine: Samples the replies.
        scorer: Scores the episodes of a rollout in place of the environments (`llmgym.rollout.scoring`).
        max_overlong: Largest share of tasks that may not fit the context, of all so far and at least `_FEW`; but where
            the first `_NONE_OF` do not, none will.
        max_env_errors: Largest share of episodes that their environment may fail, counted in the same way.
    """

    def __init__(
        self,
        envs: TextVectorEnv,
        codec: ChatCodec,
        engine: Engine,
        scorer: AnyScorer | None = None,
        max_overlong: float = 0.25,
        max_env_errors: float = 0.25,
    ) -> None:
        self.envs, self.codec, self.engine, self.scorer = envs, codec, engine, scorer
        self._overlong, self._failed = _Tally(max_overlong), _Tally(max_env_errors)

    def collect(self, tasks: Sequence[Task], sampling: Sampling, seed: int = 0) -> list[Trajectory]:
        """Play one episode per task; returns them in the order of the tasks.

        Args:
            tasks: What to play.
            sampling: How replies are sampled.
            seed: Start of every reply's own seed.

        Raises:
            ContextOverflowError: More first observations leave no room for a reply than may do so.
            EnvironmentFailedError: More environments raise exceptions or hang than may do so.
            EnvironmentContractError: Siblings of a group differ in their first observation.
            StaleCompletionError: A reply was sampled by other weights than the engine's current ones.
        """
        trajectories = [Trajectory(task.seed, task.group) for task in tasks]
        scoring = None if self.scorer is None else Scoring(self.scorer, trajectories)
        try:
            run(self._play(trajectories, sampling, seed, scoring))
        except BaseException:
            self.engine.abort()
            raise
        self._count(trajectories)
        if scoring is not None:
            scoring.finish()
        return trajectories

    def _count(self, trajectories: Sequence[Trajectory]) -> None:
        """Stop where too many tasks do not fit, or too many environments fail: then something else is wrong."""
        overlong = {trajectory.group: trajectory for trajectory in trajectories if trajectory.overlong}
        if self._overlong.too_many(len(overlong), len({trajectory.group for trajectory in trajectories})):
            example = next(iter(overlong.values()))
            raise ContextOverflowError(
                f"The first observations of {self._overlong} tasks leave no room for a reply in a "
                f"context of {self.engine.context_length} tokens, that of seed {example.seed} takes "
                f"{len(example.tokens)}: expected a share of at most {self._overlong.share:g} (max_overlong). "
                "Raise context_length, if the model can take more, or shorten the task."
            )
        failed = [trajectory for trajectory in trajectories if trajectory.failed]
        if self._failed.too_many(len(failed), len(trajectories)):
            raise EnvironmentFailedError(
                f"The environment failed in {self._failed} episodes: expected a share of at most "
                f"{self._failed.share:g} (max_env_errors). In one of them, {failed[0].score_error}"
            )

    async def _play(
        self, trajectories: list[Trajectory], sampling: Sampling, seed: int, scoring: Scoring | None
    ) -> None:
        """Play all episodes."""
        first_of: dict[int, list[Message]] = {}  # what a group saw first
        dispatcher = Dispatcher(self.engine)
        rules = Play(self.codec, dispatcher.generate, sampling, seed, self.engine.context_length)
        free: asyncio.LifoQueue[int] = asyncio.LifoQueue()
        for env in reversed(range(self.envs.num_envs)):
            free.put_nowait(env)

        async def play(index: int, room: WaitingRoom) -> None:
            env, trajectory = await free.get(), trajectories[index]
            try:
                await rules.episode(index, trajectory, _Stage(self.envs, env, room, trajectory, first_of))
            except EpisodeLostError as fault:
                trajectory.fail(fault)
                self.envs.replace(env, hangs=fault.kind == "env_timeout")
            episode = None
            if trajectory.ending in _CUT_OFF:
                trajectory.score_error = trajectory.score_error or _CUT_OFF[trajectory.ending]
            elif not trajectory.failed:
                episode = self.envs.episode(env) or episode_of(trajectory.messages)
            dispatcher.release(index)
            self.envs.leave_one(env)
            free.put_nowait(env)
            if scoring is not None:
                await scoring.over(index, episode)

        async with WaitingRoom(min(self.envs.num_envs, len(trajectories))) as room:
            serving = asyncio.create_task(dispatcher.serve())
            playing = [asyncio.create_task(play(index, room)) for index in range(len(trajectories))]
            try:
                await _all_of(playing, serving)
            finally:
                for task in (serving, *playing):
                    task.cancel()
                await asyncio.gather(serving, *playing, return_exceptions=True)


class _Stage:
    """One environment of many, for one episode.

    Args:
        envs: All of them.
        index: Which.
        room: Where it waits, if it does.
        trajectory: Of the episode.
        first_of: What each group saw first, which siblings have to see too.
    """

    def __init__(
        self,
        envs: TextVectorEnv,
        index: int,
        room: WaitingRoom,
        trajectory: Trajectory,
        first_of: dict[int, list[Message]],
    ) -> None:
        self._envs, self._index, self._room = envs, index, room
        self._trajectory, self._first_of = trajectory, first_of

    async def reset(self, seed: int) -> list[Message]:
        """See `Stage`."""
        observation, _ = await self._envs.in_turn(self._room, self._envs.reset_one, self._index, seed)
        messages = self._envs.opening(self._index, observation)
        expected = self._first_of.setdefault(self._trajectory.group, list(messages))
        if messages != expected:
            raise EnvironmentContractError(
                f"Two resets with seed {seed} gave different first observations "
                f"({expected[-1].content!r:.60} and {messages[-1].content!r:.60}): "
                "an environment has to be a function of its seed, with self.np_random as its only source of chance."
            )
        return messages

    @property
    def tools(self) -> Schemas:
        """See `Stage`."""
        return self._envs.tools(self._index)

    async def step(self, action: str) -> StepResult:
        """See `Stage`."""
        return await self._envs.in_turn(self._room, self._envs.step_one, self._index, action)


class _Tally:
    """How much went wrong so far, and whether that is too much.

    Args:
        share: Of all so far, and of at least `_FEW`, that may go wrong.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self._wrong = self._all = 0

    def too_many(self, wrong: int, of: int) -> bool:
        """Count some more, and tell whether it is now too much."""
        self._wrong += wrong
        self._all += of
        none_right = self._wrong == self._all and self._all >= _NONE_OF
        return wrong > 0 and (none_right or self._wrong > self.share * max(self._all, _FEW))

    def __str__(self) -> str:
        return f"{self._wrong} of {self._all}"


async def _all_of(playing: Sequence[asyncio.Task[None]], serving: asyncio.Task[None]) -> None:
    """Wait for all episodes; raise what the first that failed raises, or whoever serves them."""
    episodes = asyncio.gather(*playing)
    episodes.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may wait for it any more
    await asyncio.wait((episodes, serving), return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        episodes.cancel()
        serving.result()
    await episodes

"""`BaseCollector`: many episodes at once, each a coroutine, whoever replies in them."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from llmgym.config.sections import Sampling
from llmgym.envs.faults import EpisodeLostError, caught
from llmgym.envs.vector import TextVectorEnv
from llmgym.envs.waiting import WaitingRoom, run
from llmgym.errors import ConfigError
from llmgym.rollout.limits import Limits
from llmgym.rollout.play import Play
from llmgym.rollout.scoring import Scoring, episode_of, kind_of
from llmgym.rollout.stage import EnvironmentStage
from llmgym.rollout.stopwatch import Stopwatch
from llmgym.rollout.task import Task, in_shares, numbered
from llmgym.rollout.trajectory import Trajectory
from llmgym.scorers.asking import AnyScorer
from llmgym.types import Episode, Message, Score

_CUT_OFF = {
    "context": "the episode outgrew the context",
    "max_tokens": "the episode used its tokens up",
    "no_reply": "there was no reply",
}


class BaseCollector(ABC):
    """Plays episodes: environments on one side, whoever replies on the other.

    Every episode is a coroutine (`llmgym.rollout.play`), and there is no barrier between turns or
    groups: a slow episode delays nobody. Where there are more tasks than environments, an
    environment that is free takes the next task.

    An environment whose `begin`, `respond` or `score` is a coroutine, or that says that it is
    `blocking`, waits beside the others; all others are stepped at once.

    An environment of several `seats` gives a trajectory for each seat that learns. A conversation that is cut off ends
    the others too.

    A task whose first observation leaves no room for a reply gives an episode without replies
    and without a score, which ends as one that outgrew the context does.

    An environment that raises an exception, or takes longer than its `step_timeout`, ends its
    own episode without a score and no other one. A new one takes its place. If the agent cannot be the reason, because
    it has said nothing yet or the fault is an `InfrastructureError`, the new one plays the task again, with the same
    seeds for its replies.

    Args:
        envs: The environments.
        scorer: Scores the episodes of a rollout in place of the environments (`llmgym.rollout.scoring`).
        max_overlong: See `Limits`.
        max_failure_rate: The same.
        needs_scores: Whether an episode that nobody could score counts as failed; none does where nobody scores.
        env_retries: How often an episode may be played again.
        groups_at_once: Groups that are played side by side, in the order of the tasks; None for all.
        players: Whose seats can be played.

    Raises:
        ConfigError: No seat is the learner's, or one is somebody's who is not there.
    """

    def __init__(
        self,
        envs: TextVectorEnv,
        scorer: AnyScorer | None = None,
        *,
        max_overlong: float = 0.25,
        max_failure_rate: float = 0.2,
        needs_scores: bool = True,
        env_retries: int = 1,
        groups_at_once: int | None = None,
        players: Collection[str] = ("learner",),
    ) -> None:
        self.envs, self.scorer = envs, scorer
        self._env_retries, self._groups_at_once = env_retries, groups_at_once
        judged = needs_scores and (scorer is not None or envs.has_score)
        self._limits = Limits(max_overlong, max_failure_rate, needs_scores=judged)
        self.watch = Stopwatch()
        """Where the time went in all that was played so far."""
        self._learners = [seat for seat, player in enumerate(envs.seats) if player == "learner"]
        if set(envs.seats) - set(players) or not self._learners:
            raise ConfigError(
                f"The seats of the environment are {', '.join(envs.seats) or 'none'}: expected at least one learner, "
                "and an engine for those that are frozen."
            )

    @abstractmethod
    def _rules(self, sampling: Sampling, seed: int, room: WaitingRoom) -> Play:
        """Return how the episodes of a rollout are played.

        Args:
            sampling: How replies are sampled, the limits of the environments included.
            seed: Start of every reply's own seed.
            room: For what waits.
        """

    @abstractmethod
    def _abort(self) -> None:
        """Drop what is under way, after something went wrong."""

    def collect(self, tasks: Sequence[Task], sampling: Sampling, seed: int = 0) -> list[Trajectory]:
        """Play one episode per task; returns them in the order of the tasks, or of the groups if several seats learn.

        Args:
            tasks: What to play.
            sampling: How replies are sampled, within the limits that the environments set themselves.
            seed: Start of every reply's own seed.

        Raises:
            ContextOverflowError: More first observations leave no room for a reply than may do so.
            FailureRateError: More episodes are without a score, and not for being too long, than may be.
            EnvironmentContractError: Siblings of a group differ in their first observation, or scores are of several
                kinds.
        """
        shares = [tasks] if self._groups_at_once is None else in_shares(numbered(tasks), self._groups_at_once)
        trajectories = [one for share in shares for one in self.play(share, sampling, seed)]
        self._limits.count(trajectories)
        return trajectories

    def play(self, tasks: Sequence[Task], sampling: Sampling, seed: int = 0) -> list[Trajectory]:
        """Do what `collect` does, for all tasks side by side, and count nothing."""
        tables = [self._table(task) for task in tasks]
        trajectories = [table[seat] for table in tables for seat in self._learners]
        if len(self._learners) > 1:
            trajectories.sort(key=lambda trajectory: trajectory.group)  # siblings are adjacent
        scoring = None if self.scorer is None else Scoring(self.scorer, trajectories, self.watch)
        try:
            numbers = [place if task.number is None else task.number for place, task in enumerate(tasks)]
            run(self._play(tables, numbers, trajectories, sampling, seed, scoring))
        except BaseException:
            self._abort()
            raise
        if scoring is not None:
            scoring.finish()
            kind_of(trajectories)  # refused, if a scorer mixes kinds that cannot be compared
        return trajectories

    def state_dict(self) -> dict[str, Any]:
        """Return how much went wrong so far."""
        return self._limits.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from what `state_dict` returned."""
        self._limits.load_state_dict(state)

    def _table(self, task: Task) -> list[Trajectory]:
        """Return a trajectory for each seat of an episode; those that learn have a group each, the others none."""
        groups = {seat: task.group * len(self._learners) + nth for nth, seat in enumerate(self._learners)}
        seats = range(len(self.envs.seats))
        return [Trajectory(task.seed, groups.get(seat, -1), data_row=task.row, seat=seat) for seat in seats]

    async def _play(
        self,
        tables: list[list[Trajectory]],
        numbers: Sequence[int],
        trajectories: list[Trajectory],
        sampling: Sampling,
        seed: int,
        scoring: Scoring | None,
    ) -> None:
        """Play all episodes, each with a table and a number; `trajectories` are those that learn, to be scored."""
        places = {id(trajectory): place for place, trajectory in enumerate(trajectories)}
        first_of: dict[int, list[Message]] = {}  # what the first seat of a group saw first
        free: asyncio.LifoQueue[int] = asyncio.LifoQueue()
        for env in reversed(range(self.envs.num_envs)):
            free.put_nowait(env)

        async def play(index: int, rules: Play, room: WaitingRoom) -> None:
            env, table = await free.get(), tables[index]
            first = numbers[index] * len(table)  # request number of the first seat
            episodes: list[Episode | None] = [None] * len(table)
            succeeded = None
            while table[0].ending is None:
                try:
                    trajectory = table[self._learners[0]]
                    stage = EnvironmentStage(self.envs, env, room, self.watch, trajectory, first_of)
                    await rules.episode(first, table, stage)
                    _cut_off(table)
                    if scoring is not None:
                        succeeded = self.envs.judge_of_success(env)
                        episodes = [self._episode(env, trajectory) for trajectory in table]
                except EpisodeLostError as fault:
                    again = self._tries_again(table, fault)
                    for trajectory in table:
                        trajectory.start_over() if again else trajectory.fail(fault)
                    self.envs.replace(env, hangs=fault.kind == "env_timeout")
            rules.release(first)
            if isinstance(released := caught(self.envs.release_one, env), EpisodeLostError):
                self.envs.replace(env, hangs=released.kind == "env_timeout")
            free.put_nowait(env)
            if scoring is not None:
                for seat in self._learners:
                    judge = None if episodes[seat] is None else succeeded
                    await scoring.over(places[id(table[seat])], episodes[seat], judge)

        async with WaitingRoom(min(self.envs.num_envs, len(tables))) as room:
            rules = self._rules(self.envs.within_limits(sampling), seed, room)
            serving = [asyncio.create_task(one) for one in rules.serving()]
            playing = [asyncio.create_task(play(index, rules, room)) for index in range(len(tables))]
            try:
                await _all_of(playing, serving)
            finally:
                for task in (*serving, *playing):
                    task.cancel()
                await asyncio.gather(*serving, *playing, return_exceptions=True)

    def _tries_again(self, table: Sequence[Trajectory], fault: EpisodeLostError) -> bool:
        """Tell whether an episode is played again after a fault: not where the agent may have caused it."""
        innocent = fault.infrastructure or not any(trajectory.replies for trajectory in table)
        return innocent and table[0].retries < self._env_retries

    def _episode(self, env: int, trajectory: Trajectory) -> Episode | None:
        """Return what was said in a seat of an environment; None if the environment did not end it or nothing was."""
        if trajectory.failed or trajectory.ending in _CUT_OFF or not trajectory.replies:
            return None
        episode = self.envs.episode(env, trajectory.seat) or episode_of(trajectory.messages)
        if trajectory.score is not None:
            earlier = sum(turn.reward for turn in episode.turns)
            episode.scored = Score(trajectory.score - earlier, dict(trajectory.parts))
        return episode


def _cut_off(table: Sequence[Trajectory]) -> None:
    """End all seats of an episode in which one was cut off: none of them has a score."""
    cut = next((trajectory for trajectory in table if trajectory.ending in _CUT_OFF), None)
    if cut is not None and cut.ending is not None:
        reason = _CUT_OFF[cut.ending] if len(table) == 1 else f"{_CUT_OFF[cut.ending]} in seat {cut.seat}"
        for trajectory in table:
            trajectory.ending, trajectory.score_error = cut.ending, trajectory.score_error or reason


async def _all_of(playing: Sequence[asyncio.Task[None]], serving: Sequence[asyncio.Task[None]]) -> None:
    """Wait for all episodes; raise what the first that failed raises, or whoever serves them."""
    episodes = asyncio.gather(*playing)
    episodes.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may wait for it any more
    waited: list[asyncio.Future[Any]] = [episodes, *serving]
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    for task in serving:
        if task.done():
            episodes.cancel()
            task.result()
    await episodes

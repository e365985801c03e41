"""`MessageCollector`: many episodes at once, whose replies come as text."""

import asyncio
from collections.abc import Sequence
from typing import Any

from llmgym.config.sections import Sampling
from llmgym.envs.vector import TextVectorEnv
from llmgym.envs.waiting import WaitingRoom
from llmgym.errors import EngineError
from llmgym.rollout.base_collector import BaseCollector
from llmgym.rollout.message_play import MessagePlay
from llmgym.rollout.speaker import NoReplyError, Speaker
from llmgym.rollout.task import Task
from llmgym.rollout.trajectory import Trajectory
from llmgym.scorers.asking import AnyScorer

_IN_A_ROW = 16  # tasks without a reply, after which none is expected any more


class MessageCollector(BaseCollector):
    """Plays episodes: environments on one side, a speaker on the other; see `BaseCollector`.

    An episode without a reply ends there, without a score. If all of the first episodes, or of many in a row, are
    without one, the speaker is taken to be gone.

    Args:
        envs: The environments.
        speaker: Replies to their messages.
        scorer: See `BaseCollector`.
        options: The same.

    Raises:
        ConfigError: There are seats that nobody plays.
    """

    def __init__(self, envs: TextVectorEnv, speaker: Speaker, scorer: AnyScorer | None = None, **options: Any) -> None:
        super().__init__(envs, scorer, **options)
        self._speaker = speaker
        self._answered = False
        self._without: set[int] = set()  # groups without a reply since the last one

    def collect(self, tasks: Sequence[Task], sampling: Sampling, seed: int = 0) -> list[Trajectory]:
        """Play one episode per task; see `BaseCollector.collect`.

        Raises:
            EngineError: The speaker replies to nobody.
        """
        trajectories = super().collect(tasks, sampling, seed)
        if not self._answered and (lost := [one for one in trajectories if one.ending == "no_reply"]):
            raise EngineError(f"None of {len(trajectories)} episodes had a reply: {lost[0].score_error}")
        return trajectories

    def _rules(self, sampling: Sampling, seed: int, room: WaitingRoom) -> MessagePlay:
        places = asyncio.Semaphore(self._speaker.concurrency)
        return MessagePlay(self._speaker, sampling, seed, room, places, self._count)

    def _abort(self) -> None:
        """Do nothing: the room gives up what is waited for."""

    def _count(self, group: int, error: NoReplyError | None) -> None:
        """Take that a reply came, or none.

        Raises:
            EngineError: None came for many tasks in a row.
        """
        if error is None or error.answered:
            self._answered = True
            self._without.clear()
            return
        self._without.add(group)
        if len(self._without) >= _IN_A_ROW:
            raise EngineError(f"{len(self._without)} tasks in a row are without a reply: {error}")

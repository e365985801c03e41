"""`EnvironmentStage`: one environment of many, as an episode sees it."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

from llmgym.calls import Schemas
from llmgym.envs.vector import StepResult, TextVectorEnv
from llmgym.envs.waiting import WaitingRoom
from llmgym.errors import EnvironmentContractError
from llmgym.rollout.stopwatch import Stopwatch
from llmgym.rollout.trajectory import Trajectory
from llmgym.types import Message

Value = TypeVar("Value")


class EnvironmentStage:
    """One environment of many, for one episode.

    Args:
        envs: All of them.
        index: Which.
        room: Where it waits, if it does.
        watch: Is told how long it takes, if it does not.
        trajectory: Of the episode.
        first_of: What each group saw first, which siblings have to see too.
    """

    def __init__(
        self,
        envs: TextVectorEnv,
        index: int,
        room: WaitingRoom,
        watch: Stopwatch,
        trajectory: Trajectory,
        first_of: dict[int, list[Message]],
    ) -> None:
        self._envs, self._index, self._room, self._watch = envs, index, room, watch
        self._trajectory, self._first_of = trajectory, first_of

    async def reset(self, seed: int) -> list[Message]:
        """See `Stage`."""
        row = self._trajectory.data_row
        options = None if row is None else {"row": row}
        observation, _ = await self._call(self._envs.reset_one, seed, options)
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
    def seat(self) -> int:
        """See `Stage`."""
        return self._envs.seat(self._index)

    def opening(self, observation: str) -> list[Message]:
        """See `Stage`."""
        return self._envs.opening(self._index, observation)

    @property
    def tools(self) -> Schemas:
        """See `Stage`."""
        return self._envs.tools(self._index)

    async def step(self, action: str) -> StepResult:
        """See `Stage`."""
        return await self._call(self._envs.step_one, action)

    async def _call(self, method: Callable[..., Value], *arguments: Any) -> Value:
        holds_up = self._watch.during("environment") if self._envs.acts_at_once(self._index) else nullcontext()
        with holds_up:
            return await self._envs.in_turn(self._room, method, self._index, *arguments)

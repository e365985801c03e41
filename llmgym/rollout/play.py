"""`Play`: one episode, from its first observation to its end, whoever replies."""

from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from llmgym.calls import Schemas
from llmgym.envs.vector import StepResult
from llmgym.rollout.trajectory import Trajectory
from llmgym.scorers.pointwise import as_number
from llmgym.types import Message, Score, well_formed


class Stage(Protocol):
    """One environment, as an episode sees it."""

    @property
    def tools(self) -> Schemas:
        """The JSON schemas of the tools that the agent can call."""
        ...

    @property
    def seat(self) -> int:
        """Whose turn it is."""
        ...

    async def reset(self, seed: int) -> list[Message]:
        """Begin the task of a seed; return what the agent is told first, the system prompt if there is one."""
        ...

    def opening(self, observation: str) -> list[Message]:
        """Return a first observation of the seat whose turn it is as what it is told first."""
        ...

    async def step(self, action: str) -> StepResult:
        """Take a reply."""
        ...


class Play(ABC):
    """What the episodes of a rollout have in common: how a conversation begins, goes on and ends."""

    async def episode(self, number: int, seats: Sequence[Trajectory], stage: Stage) -> None:
        """Play one episode into its trajectories, one per seat.

        Args:
            number: Of the first seat's episode in its rollout, from which the others count on; its requests are told
                apart by it.
            seats: Empty but for their task.
            stage: Where it plays.
        """
        heard = await stage.reset(seats[0].seed)
        self.begin(seats[stage.seat], heard, stage.tools)
        while all(trajectory.ending is None for trajectory in seats):
            seat = stage.seat
            trajectory = seats[seat]
            action = await self.reply(number, seat, trajectory)
            if action is None:
                return
            trajectory.messages.append(Message("assistant", str(action)))
            result = await stage.step(action)
            if result.terminated or result.truncated:
                for other, end in {seat: result, **result.others}.items():
                    self.end(seats[other], end)
                return
            trajectory.replies[-1].reward = result.reward
            if (listener := seats[stage.seat]).messages:
                self.hear(listener, result.messages)
            else:
                self.begin(listener, stage.opening(result.observation), stage.tools)

    @abstractmethod
    def begin(self, trajectory: Trajectory, messages: list[Message], tools: Schemas = ()) -> None:
        """Take the first observation, and what can be called."""

    @abstractmethod
    async def reply(self, number: int, seat: int, trajectory: Trajectory) -> str | None:
        """Put the next reply into a trajectory, and return it as an action; None if there is none, and it has ended."""

    @abstractmethod
    def hear(self, trajectory: Trajectory, messages: Sequence[Message]) -> None:
        """Take what the environment says next; the conversation may end there."""

    def end(self, trajectory: Trajectory, result: StepResult) -> None:
        """Take that the episode is over, and its score."""
        trajectory.ending = "terminated" if result.terminated else "truncated"
        if not trajectory.replies:
            trajectory.score_error = f"seat {trajectory.seat} had no turn before the episode was over"
            return
        trajectory.replies[-1].reward += result.reward
        if result.terminated and result.observation:
            trajectory.messages += result.messages  # the last words
        trajectory.take(_own_score(result, [reply.reward for reply in trajectory.replies]))

    @abstractmethod
    def release(self, number: int) -> None:
        """Forget an episode that is over, by the number of its first seat."""

    @abstractmethod
    def serving(self) -> Sequence[Coroutine[Any, Any, None]]:
        """Return what has to run beside the episodes, until it is cancelled."""


def _own_score(result: StepResult, earned: Sequence[float]) -> Score:
    """Return what an environment itself says of an episode.

    Args:
        result: Its last step.
        earned: What each step gave, wrappers included: they sum up to the score.
    """
    numbers = {well_formed(str(key)): as_number(part) for key, part in result.info.items()}
    parts = {key: part for key, part in numbers.items() if part is not None}
    said = result.score or Score(0.0)
    if parts.pop("score_missing", None) == 1.0:
        return Score(None, parts, said.error or "its environment does not say why")
    rewards = list(earned)
    for turn, reward in enumerate(said.rewards[:-1] if said.rewards else ()):  # the last step gave their sum
        rewards[turn] += reward
        rewards[-1] -= reward
    return Score(sum(earned), parts, rewards=rewards, kind=said.kind)

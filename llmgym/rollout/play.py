"""`play`: one episode, from its first observation to its end."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from llmgym.calls import Schemas
from llmgym.config.sections import Sampling
from llmgym.engines.base import Completion, GenerationRequest
from llmgym.envs.vector import StepResult
from llmgym.rollout.chat import ChatCodec
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


@dataclass(frozen=True)
class Play:
    """What the episodes of a rollout have in common.

    Attributes:
        codec: Turns text into tokens.
        generate: Samples a reply, for each seat.
        sampling: How.
        seed: Start of every reply's own seed.
        context_length: Tokens of a conversation, at most.
    """

    codec: ChatCodec
    generate: Sequence[Callable[[GenerationRequest], Awaitable[Completion]]]
    sampling: Sampling
    seed: int
    context_length: int

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
            trajectory.act(await self.generate[seat](self.request(number + seat, trajectory)))
            action = self.codec.action(trajectory.newest_reply, trajectory.tools)
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

    def begin(self, trajectory: Trajectory, messages: list[Message], tools: Schemas = ()) -> None:
        """Take the first observation, and what can be called; it may leave no room for a reply."""
        trajectory.messages, trajectory.tools = messages, tools
        may_fit = self.codec.fits(messages, self.context_length)
        if may_fit:  # else encoding them would take long
            trajectory.observe(self.codec.prompt(messages, tools))
            takes = f"{len(trajectory.tokens)} tokens"
        else:
            takes = f"{sum(len(message.content) for message in messages)} characters"
        if not may_fit or len(trajectory.tokens) >= self.context_length:
            trajectory.ending = "context"
            trajectory.score_error = (
                f"the first observation of {trajectory.subject} takes {takes} and leaves no room for a reply in a "
                f"context of {self.context_length} tokens"
            )

    def request(self, number: int, trajectory: Trajectory) -> GenerationRequest:
        """Return what is asked of the engine next."""
        room = self.context_length - trajectory.context_length
        return GenerationRequest(
            request_id=number,
            episode_id=number,
            tokens=trajectory.context,
            max_tokens=min(self.sampling.max_tokens, self._tokens_left(trajectory), room),
            stop_token_ids=self.codec.stop_token_ids,
            sampling=self.sampling,
            seed=(self.seed << 64) + (number << 16) + len(trajectory.replies),
        )

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

    def hear(self, trajectory: Trajectory, messages: Sequence[Message]) -> None:
        """Take what the environment says next, if there is room for it and for a reply."""
        trajectory.messages += messages
        if not self.codec.fits(messages, self.context_length):  # encoding them would take long
            trajectory.ending = "context"
            return
        bridge = self.codec.bridge(messages, trajectory.tokens[-1])
        rewritten = self.codec.rewritten(trajectory.messages, trajectory.newest_reply, trajectory.tools)
        length = trajectory.context_length + len(bridge) if rewritten is None else len(rewritten)
        if length >= self.context_length:
            trajectory.ending = "context"
        elif not self._tokens_left(trajectory):
            trajectory.ending = "max_tokens"
        elif rewritten is None:
            trajectory.observe(bridge)
        else:
            trajectory.start_row(rewritten)

    def _tokens_left(self, trajectory: Trajectory) -> int:
        """Return how many tokens an episode may still sample."""
        bound = self.sampling.max_episode_tokens
        return self.sampling.max_tokens if bound is None else max(0, bound - trajectory.sampled_tokens)


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

"""`TokenPlay`: episodes in tokens, which an engine samples."""

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from llmgym.calls import Schemas
from llmgym.config.sections import Sampling
from llmgym.engines.base import GenerationRequest
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.dispatcher import Dispatcher
from llmgym.rollout.play import Play
from llmgym.rollout.trajectory import Trajectory
from llmgym.types import Message


@dataclass(frozen=True)
class TokenPlay(Play):
    """Episodes in tokens, which an engine samples.

    Attributes:
        codec: Turns text into tokens.
        dispatchers: Have replies sampled, for each seat.
        sampling: How.
        seed: Start of every reply's own seed.
        context_length: Tokens of a conversation, at most.
    """

    codec: ChatCodec
    dispatchers: Sequence[Dispatcher]
    sampling: Sampling
    seed: int
    context_length: int

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

    async def reply(self, number: int, seat: int, trajectory: Trajectory) -> str:
        """Have a reply sampled; see `Play`."""
        trajectory.act(await self.dispatchers[seat].generate(self.request(number + seat, trajectory)))
        return self.codec.action(trajectory.newest_reply, trajectory.tools)

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

    def release(self, number: int) -> None:
        """Let the engines forget an episode that is over."""
        for seat, dispatcher in enumerate(self.dispatchers):
            dispatcher.release(number + seat)

    def serving(self) -> list[Coroutine[Any, Any, None]]:
        """Return what has replies sampled; see `Play`."""
        return [dispatcher.serve() for dispatcher in dict.fromkeys(self.dispatchers)]

    def _tokens_left(self, trajectory: Trajectory) -> int:
        """Return how many tokens an episode may still sample."""
        bound = self.sampling.max_episode_tokens
        return self.sampling.max_tokens if bound is None else max(0, bound - trajectory.sampled_tokens)

"""`MessagePlay`: episodes in messages, for models of which nobody here sees a token."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from llmgym.calls import Schemas
from llmgym.config.sections import Sampling
from llmgym.envs.waiting import WaitingRoom
from llmgym.errors import ConfigError
from llmgym.rollout.openai_chat import action_in
from llmgym.rollout.play import Play
from llmgym.rollout.speaker import Asking, NoReplyError, Speaker
from llmgym.rollout.trajectory import Trajectory
from llmgym.types import Message


@dataclass(frozen=True)
class MessagePlay(Play):
    """Episodes in messages, to which a speaker replies.

    Attributes:
        speaker: Replies.
        sampling: How.
        seed: Start of every reply's own seed.
        room: Where it is waited for.
        places: As many as the speaker can be asked for at once.
        tell: Is told of each reply, and of each that there was none, of which group the episode is.
    """

    speaker: Speaker
    sampling: Sampling
    seed: int
    room: WaitingRoom
    places: asyncio.Semaphore
    tell: Callable[[int, NoReplyError | None], object]

    def begin(self, trajectory: Trajectory, messages: list[Message], tools: Schemas = ()) -> None:
        """Take the first observation; see `Play`."""
        trajectory.messages, trajectory.tools = messages, tools

    async def reply(self, number: int, seat: int, trajectory: Trajectory) -> str | None:
        """Ask for the next reply; see `Play`."""
        asking = self._asking(number + seat, trajectory)
        try:
            async with self.places:
                spoken = await self.room.call(self.speaker.reply, asking)
        except NoReplyError as error:
            trajectory.ending = error.ending
            trajectory.score_error = f"there was no reply in turn {len(trajectory.replies) + 1} of "
            trajectory.score_error += f"{trajectory.subject}: {error}"
            self.tell(trajectory.group, error)
            return None
        self.tell(trajectory.group, None)
        trajectory.hear_of(spoken.finish_reason, spoken.read, spoken.written)
        return action_in(spoken.text) if trajectory.tools else spoken.text

    def hear(self, trajectory: Trajectory, messages: Sequence[Message]) -> None:
        """Take what the environment says next, if the episode has tokens left."""
        trajectory.messages += messages
        if self._tokens_left(trajectory) < 1:
            trajectory.ending = "max_tokens"

    def release(self, number: int) -> None:
        """Do nothing: each conversation is sent as a whole."""

    def serving(self) -> tuple[()]:
        """Return nothing: whoever asks waits for the reply."""
        return ()

    def _asking(self, number: int, trajectory: Trajectory) -> Asking:
        entropy = (self.seed, number, len(trajectory.replies))
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0]) >> 1
        most = min(self.sampling.max_tokens, self._tokens_left(trajectory))
        return Asking(number, tuple(trajectory.messages), trajectory.tools, self.sampling, most, seed)

    def _tokens_left(self, trajectory: Trajectory) -> int:
        """Return how many tokens an episode may still sample."""
        bound = self.sampling.max_episode_tokens
        if bound is None or not trajectory.replies:
            return self.sampling.max_tokens if bound is None else bound
        written = trajectory.written_tokens
        if written is None:
            raise ConfigError(
                f"max_episode_tokens: expected none, got {bound}, and a server that does not say how many tokens it "
                "writes."
            )
        return bound - written

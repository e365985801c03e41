"""The protocol between the collector of messages and whatever replies to them."""

from dataclasses import dataclass
from typing import Literal, Protocol

from llmgym.calls import Schemas
from llmgym.config.sections import Sampling
from llmgym.engines.base import FinishReason
from llmgym.types import Message


@dataclass(frozen=True, slots=True)
class Asking:
    """A wish for one reply to a conversation.

    Attributes:
        number: Of the episode.
        messages: The conversation so far; replies are as they were said.
        tools: The JSON schemas of the tools that can be called.
        sampling: How replies are sampled.
        max_tokens: Tokens of this one, at most.
        seed: Between 0 and 2**31; a server that heeds it gives the same reply again.
    """

    number: int
    messages: tuple[Message, ...]
    tools: Schemas
    sampling: Sampling
    max_tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class Spoken:
    """One reply.

    Attributes:
        text: What it says, with calls of tools as `llmgym.calls` writes them.
        finish_reason: Why it ended.
        read: Tokens that were read for it; None if nobody says.
        written: Tokens of the reply; None if nobody says.
    """

    text: str
    finish_reason: FinishReason
    read: int | None = None
    written: int | None = None


class NoReplyError(Exception):
    """There is no reply, which costs its episode and no other one.

    Args:
        message: Why.
        ending: What becomes of the episode: ``context`` if the conversation is too long.
        answered: Whether somebody answered at all.
    """

    def __init__(
        self, message: str, ending: Literal["no_reply", "context"] = "no_reply", *, answered: bool = False
    ) -> None:
        super().__init__(message)
        self.ending, self.answered = ending, answered


class Speaker(Protocol):
    """Replies to conversations."""

    @property
    def concurrency(self) -> int:
        """How many it can be asked for at once."""
        ...

    def reply(self, asking: Asking) -> Spoken:
        """Return a reply, in a thread of its own.

        Raises:
            NoReplyError: There is none.
        """
        ...

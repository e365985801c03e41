"""What a judge asks a language model, and what it is answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llmgym.types import Message


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked.

    Attributes:
        system: What it is told first; None for nothing.
        text: What the user says.
        vote: Which of several answers to the same text this one is.
    """

    system: str | None
    text: str
    vote: int = 0

    @property
    def messages(self) -> list[Message]:
        """The question as a conversation."""
        return [*([] if self.system is None else [Message("system", self.system)]), Message("user", self.text)]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said.

    Attributes:
        text: None if it did not answer.
        error: Then why.
        read: Tokens of the question.
        written: Tokens of the answer.
        calls: Requests that it took: 0 if it was known already.
    """

    text: str | None
    error: str | None = None
    read: int = 0
    written: int = 0
    calls: int = 1


class ChatModel(Protocol):
    """A language model that answers questions."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that its answers depend on besides the question, as JSON has it."""
        ...

    @property
    def waits(self) -> bool:
        """Whether it waits for somebody else, so that it is asked in threads, one question in each."""
        ...

    def answers(self, questions: Sequence[Question]) -> list[Answer]:
        """Return an answer to each question, in order. What goes wrong is an answer with an error."""
        ...

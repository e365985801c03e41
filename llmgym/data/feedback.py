"""Answers that somebody found good or bad, from Parquet in TRL's unpaired columns: prompt, completion, label."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llmgym.data.conversations import (
    check_prompt,
    check_reply,
    choose_columns,
    column_of_booleans,
    column_of_conversations,
    read_table,
)
from llmgym.data.preferences import Preference, read_preferences
from llmgym.errors import DataError
from llmgym.types import Message


@dataclass(frozen=True, slots=True)
class Feedback:
    """A prompt, an answer, and whether it is a good one.

    Attributes:
        prompt: What was said before; the last message is the user's.
        completion: What follows: the assistant's reply, or several turns of which it has the last.
        desirable: Whether there should be more of this.
    """

    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]
    desirable: bool


def feedback_of(preferences: Iterable[Preference]) -> list[Feedback]:
    """Take pairs apart: each is a desirable answer and an undesirable one to the same prompt."""
    return [
        Feedback(pair.prompt, completion, desirable)
        for pair in preferences
        for completion, desirable in ((pair.chosen, True), (pair.rejected, False))
    ]


def read_feedback(path: Path) -> list[Feedback]:
    """Read feedback; a file of preferences does as well, and each of its pairs gives two answers.

    Columns are ``prompt``, ``completion`` and ``label`` (true or false), or ``prompt``,
    ``chosen`` and ``rejected``. Conversations are lists of ``{role, content}``, or plain strings.

    Raises:
        DataError: The file cannot be read, lacks a column, is empty, or holds another kind of
            conversation. The message names column and row.
    """
    columns = choose_columns(path, ("prompt", "completion", "label"), ("prompt", "chosen", "rejected"))
    if "chosen" in columns:
        return feedback_of(read_preferences(path))
    table, _ = read_table(path, columns)
    if not len(table):
        raise DataError(f"{str(path)!r}: expected answers with a label, got a table without rows.")
    try:
        prompts = column_of_conversations(table, "prompt", "user")
        completions = column_of_conversations(table, "completion", "assistant")
        for row in range(len(table)):
            check_prompt(prompts[row], f"Column 'prompt', row {row}")
            check_reply(completions[row], f"Column 'completion', row {row}")
        labels = column_of_booleans(table, "label")
    except DataError as error:
        raise DataError(f"{str(path)!r}: {error}") from None
    return [Feedback(*row) for row in zip(prompts, completions, labels, strict=True)]

"""Answers that somebody found good or bad, from Parquet in TRL's unpaired columns: prompt, completion, label."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from llmgym.calls import Schemas
from llmgym.data.conversations import (
    booleans_in,
    check_prompt,
    check_reply,
    choose_columns,
    conversations_in,
    read_rows,
    read_table,
    reading,
    tools_in,
)
from llmgym.data.preferences import Preference, read_preferences
from llmgym.types import Message


@dataclass(frozen=True, slots=True)
class Feedback:
    """A prompt, an answer, and whether it is a good one.

    Attributes:
        prompt: What was said before; the last message is the user's.
        completion: What follows: the assistant's reply, or several turns of which it has the last.
        desirable: Whether there should be more of this.
        tools: The JSON schemas of the tools that the assistant can call.
        row: Its row in the file that it was read from, counted from 0; None if it was made.
    """

    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]
    desirable: bool
    tools: Schemas = ()
    row: int | None = field(default=None, compare=False)


def feedback_of(preferences: Iterable[Preference]) -> list[Feedback]:
    """Take pairs apart: each is a desirable answer and an undesirable one to the same prompt."""
    return [
        Feedback(pair.prompt, completion, desirable, pair.tools, pair.row)
        for pair in preferences
        for completion, desirable in ((pair.chosen, True), (pair.rejected, False))
    ]


def read_feedback(path: Path, skipped: list[str] | None = None) -> list[Feedback]:
    """Read feedback; a file of preferences does as well, and each of its pairs gives two answers.

    Columns are ``prompt``, ``completion`` and ``label`` (true or false), or ``prompt``,
    ``chosen`` and ``rejected``. Conversations are lists of ``{role, content}``, or plain strings. ``tools`` is read
    where it is there.

    Args:
        path: The file.
        skipped: Is given what is wrong with rows that cannot be read, which are then left out; None to raise it.

    Raises:
        DataError: The file cannot be read, lacks a column, is empty, or holds another kind of
            conversation. The message names column and row.
    """
    columns = choose_columns(path, ("prompt", "completion", "label"), ("prompt", "chosen", "rejected"))
    if "chosen" in columns:
        return feedback_of(read_preferences(path, skipped))
    table, _ = read_table(path, columns, optional=("tools",))
    with reading(path):
        prompt = conversations_in(table, "prompt", "user")
        completion = conversations_in(table, "completion", "assistant")
        label = booleans_in(table, "label")
        tools = tools_in(table)

        def read(row: int) -> Feedback:
            answer = Feedback(prompt(row), completion(row), label(row), tools(row), row)
            check_prompt(answer.prompt, f"Column 'prompt', row {row}")
            check_reply(answer.completion, f"Column 'completion', row {row}")
            return answer

        return read_rows(table, read, skipped)

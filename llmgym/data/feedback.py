"""Answers that somebody found good or bad, from Parquet in TRL's unpaired columns: prompt, completion, label."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmgym.calls import Schemas
from llmgym.data.conversations import (
    boolean_of,
    check_prompt,
    check_reply,
    conversation_of,
    read_rows,
    reading,
    tools_of,
)
from llmgym.data.preferences import OPTIONAL, Preference, preferences_in
from llmgym.data.tables import read_table
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
    layouts = ("prompt", "completion", "label"), ("prompt", "chosen", "rejected")
    table = read_table(path, *layouts, optional=OPTIONAL)
    if "chosen" in table.columns:
        return feedback_of(preferences_in(table, path, skipped))
    with reading(path):
        return read_rows(table, _feedback_of, skipped)


def _feedback_of(content: Mapping[str, Any], row: int) -> Feedback:
    prompt = conversation_of(content, "prompt", "user", row)
    completion = conversation_of(content, "completion", "assistant", row)
    check_prompt(prompt, f"Column 'prompt', row {row}")
    check_reply(completion, f"Column 'completion', row {row}")
    return Feedback(prompt, completion, boolean_of(content, "label", row), tools_of(content, row), row)

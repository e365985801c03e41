"""Conversations to imitate, from Parquet in the columns that TRL reads too."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmgym.calls import Schemas
from llmgym.data.conversations import check_prompt, check_reply, conversation_of, read_rows, reading, tools_of
from llmgym.data.tables import read_table
from llmgym.errors import DataError
from llmgym.types import Message


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation of which the assistant's part is to be learnt.

    Attributes:
        prompt: The messages before the assistant's first reply to learn; the last message is the user's.
        completion: What follows: the assistant's reply, or several turns of which it has the last.
        tools: The JSON schemas of the tools that the assistant can call.
        row: Its row in the file that it was read from, counted from 0; None if it was made.
    """

    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]
    tools: Schemas = ()
    row: int | None = field(default=None, compare=False)


def read_conversations(path: Path, skipped: list[str] | None = None) -> list[Conversation]:
    """Read conversations to imitate.

    Columns are ``messages`` (all replies of the assistant are learnt), or ``prompt`` and
    ``completion``, or ``prompt`` and ``chosen``, as in preference data (what follows the
    prompt is learnt). Conversations are lists of ``{role, content}``; a plain string is a
    user's prompt or an assistant's reply. ``tools`` is read where it is there: what the assistant can call.

    Args:
        path: The file.
        skipped: Is given what is wrong with rows that cannot be read, which are then left out; None to raise it.

    Raises:
        DataError: The file cannot be read, lacks a column, is empty, or holds another kind of
            conversation. The message names column and row.
    """
    layouts = ("messages",), ("prompt", "completion"), ("prompt", "chosen")
    table = read_table(path, *layouts, optional=("label", "tools"))
    if "label" in table.columns:
        raise DataError(
            f"{str(path)!r}: expected demonstrations, got answers marked good and bad (column 'label'): the agent kto "
            "learns from both; for imitation leave the bad ones and the column out."
        )
    whole = table.columns[0] == "messages"
    asked, replied = ("messages", "messages") if whole else table.columns[:2]

    def read(content: Mapping[str, Any], row: int) -> Conversation:
        prompt = conversation_of(content, asked, "user", row)
        prompt, completion = _divide(prompt) if whole else (prompt, conversation_of(content, replied, "assistant", row))
        check_prompt(prompt, f"Column {asked!r}, row {row}")
        check_reply(completion, f"Column {replied!r}, row {row}")
        return Conversation(prompt, completion, tools_of(content, row), row)

    with reading(path):
        return read_rows(table, read, skipped)


def _divide(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Divide a conversation before the assistant's first message."""
    prompt = tuple(itertools.takewhile(lambda message: message.role != "assistant", messages))
    return prompt, messages[len(prompt) :]

"""Conversations to imitate, from Parquet in the columns that TRL reads too."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path

from llmgym.calls import Schemas
from llmgym.data.conversations import (
    check_prompt,
    check_reply,
    choose_columns,
    conversations_in,
    read_rows,
    read_table,
    reading,
    tools_in,
)
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
    columns = choose_columns(path, ("messages",), ("prompt", "completion"), ("prompt", "chosen"))
    table, _ = read_table(path, columns, optional=("label", "tools"))
    if "label" in table.column_names:
        raise DataError(
            f"{str(path)!r}: expected demonstrations, got answers marked good and bad (column 'label'): the agent kto "
            "learns from both; for imitation leave the bad ones and the column out."
        )
    with reading(path):
        tools = tools_in(table)
        if columns == ("messages",):
            whole = conversations_in(table, "messages", "user")
            both = ("messages", "messages")
            return read_rows(table, lambda row: _checked(*_divide(whole(row)), tools(row), both, row), skipped)
        prompt = conversations_in(table, "prompt", "user")
        completion = conversations_in(table, columns[1], "assistant")
        return read_rows(table, lambda row: _checked(prompt(row), completion(row), tools(row), columns, row), skipped)


def _divide(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Divide a conversation before the assistant's first message."""
    prompt = tuple(itertools.takewhile(lambda message: message.role != "assistant", messages))
    return prompt, messages[len(prompt) :]


def _checked(
    prompt: tuple[Message, ...], completion: tuple[Message, ...], tools: Schemas, columns: tuple[str, ...], row: int
) -> Conversation:
    check_prompt(prompt, f"Column {columns[0]!r}, row {row}")
    check_reply(completion, f"Column {columns[1]!r}, row {row}")
    return Conversation(prompt, completion, tools, row)

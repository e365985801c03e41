"""Conversations to imitate, from Parquet in the columns that TRL reads too."""

import itertools
from dataclasses import dataclass
from pathlib import Path

from llmgym.data.conversations import (
    check_prompt,
    check_reply,
    choose_columns,
    column_of_conversations,
    read_table,
)
from llmgym.errors import DataError
from llmgym.types import Message


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation of which the assistant's part is to be learnt.

    Attributes:
        prompt: What stands before the assistant's first reply to learn; the last message is the user's.
        completion: What follows: the assistant's reply, or several turns of which it has the last.
    """

    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]


def read_conversations(path: Path) -> list[Conversation]:
    """Read conversations to imitate.

    Columns are ``messages`` (all replies of the assistant are learnt), or ``prompt`` and
    ``completion``, or ``prompt`` and ``chosen``, as in preference data (what follows the
    prompt is learnt). Conversations are lists of ``{role, content}``; a plain string is a
    user's prompt or an assistant's reply.

    Raises:
        DataError: The file cannot be read, lacks a column, is empty, or holds another kind of
            conversation. The message names column and row.
    """
    columns = choose_columns(path, ("messages",), ("prompt", "completion"), ("prompt", "chosen"))
    table, _ = read_table(path, columns, optional=("label",))
    if "label" in table.column_names:
        raise DataError(
            f"{str(path)!r}: expected demonstrations, got answers marked good and bad (column 'label'): the agent kto "
            "learns from both; for imitation leave the bad ones and the column out."
        )
    if not len(table):
        raise DataError(f"{str(path)!r}: expected conversations, got a table without rows.")
    try:
        if columns == ("messages",):
            rows = [_divide(messages) for messages in column_of_conversations(table, "messages", "user")]
            return [_checked(*row, ("messages", "messages"), i) for i, row in enumerate(rows)]
        prompts = column_of_conversations(table, "prompt", "user")
        completions = column_of_conversations(table, columns[1], "assistant")
        return [_checked(*row, columns, i) for i, row in enumerate(zip(prompts, completions, strict=True))]
    except DataError as error:
        raise DataError(f"{str(path)!r}: {error}") from None


def _divide(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Divide a conversation before the assistant's first message."""
    prompt = tuple(itertools.takewhile(lambda message: message.role != "assistant", messages))
    return prompt, messages[len(prompt) :]


def _checked(
    prompt: tuple[Message, ...], completion: tuple[Message, ...], columns: tuple[str, ...], row: int
) -> Conversation:
    check_prompt(prompt, f"Column {columns[0]!r}, row {row}")
    check_reply(completion, f"Column {columns[1]!r}, row {row}")
    return Conversation(prompt, completion)

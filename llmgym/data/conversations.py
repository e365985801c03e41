"""Conversations in the rows of a table: lists of ``{role, content}``, or a string."""

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import pyarrow as pa

from llmgym.calls import Schemas, ToolCall
from llmgym.data.strict_json import from_json
from llmgym.data.tables import Table
from llmgym.errors import DataError, EnvironmentContractError
from llmgym.types import Message, Role, answers, asks

Row = TypeVar("Row")

_CALL = pa.struct(
    [
        ("id", pa.string()),
        ("type", pa.string()),
        ("function", pa.struct([("name", pa.string()), ("arguments", pa.string())])),
    ]
)
_MESSAGE = [(name, pa.string()) for name in ("role", "content", "name", "tool_call_id")]
CONVERSATION = pa.list_(pa.struct([*_MESSAGE, ("tool_calls", pa.list_(_CALL))]))
"""The type of a column that holds conversations; the last three of a message are null but for tools and calls of them,
whose arguments are JSON."""


def read_rows(
    table: Table, read: Callable[[Mapping[str, Any], int], Row], skipped: list[str] | None = None
) -> list[Row]:
    """Read every row of a table.

    Args:
        table: The table.
        read: Reads one of its rows, given its columns and its number; raises a DataError that names column and row.
        skipped: Is given what is wrong with rows that cannot be read, which are then left out; None to raise it.

    Raises:
        DataError: A row cannot be read, or none can.
    """
    rows = []
    for row, content in enumerate(table.each()):
        try:
            if isinstance(content, DataError):
                raise content
            rows.append(read(content, row))
        except DataError as error:
            if skipped is None:
                raise
            skipped.append(str(error))
    if skipped and not rows:
        raise DataError(f"expected a row that can be read, got none ({skipped[0]})")
    return rows


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name a file in the errors that come up while it is read."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{str(path)!r}: {error}") from None


def conversation_of(content: Mapping[str, Any], column: str, role: Role, row: int) -> tuple[Message, ...]:
    """Return what a row has in a column as a conversation; a plain string is one message of `role`.

    Raises:
        DataError: It is empty or something else, or a message has no role or content.
    """
    return as_messages(content[column], role, f"Column {column!r}, row {row}")


def number_of(content: Mapping[str, Any], column: str, row: int) -> float | None:
    """Return the number that a row has in a column; None if that is null or there is no such column.

    Raises:
        DataError: It is something else, or not finite.
    """
    value = content.get(column)
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            if math.isfinite(value):
                return float(value)
    raise DataError(f"Column {column!r}, row {row}: expected a finite number or null, got {value!r:.80}.")


def boolean_of(content: Mapping[str, Any], column: str, row: int) -> bool:
    """Return whether a column of a row is true.

    Raises:
        DataError: It is neither true nor false.
    """
    value = content[column]
    if not isinstance(value, bool):
        got = "null" if value is None else f"{value!r:.80}"
        raise DataError(f"Column {column!r}, row {row}: expected true or false, got {got}.")
    return value


def check_reply(messages: Sequence[Message], where: str) -> None:
    """Check that messages can follow a prompt: the assistant's first and last, users' or tools' between two of them.

    Raises:
        DataError: They do not.
    """
    if not answers(messages):
        roles = [message.role for message in messages]
        raise DataError(
            f"{where}: expected assistant and user (or tool) in turn, assistant first and last, got {_list(roles)}."
        )


def check_prompt(messages: Sequence[Message], where: str) -> None:
    """Check that a reply can follow messages.

    Raises:
        DataError: The last one is not a user's or a tool's.
    """
    if not asks(messages):
        roles = [message.role for message in messages]
        raise DataError(f"{where}: expected messages of which the last is the user's or a tool's, got {_list(roles)}.")


def tools_of(content: Mapping[str, Any], row: int) -> Schemas:
    """Return the column ``tools`` of a row: JSON schemas, as they are or as JSON; none if there is no such column.

    Raises:
        DataError: It is something else.
    """
    value = content.get("tools")
    listed = _read(value or [])
    tools = tuple(map(_read, listed)) if isinstance(listed, list) else (None,)
    if not all(isinstance(tool, dict) and isinstance(tool.get("function"), dict) for tool in tools):
        raise DataError(
            f"Column 'tools', row {row}: expected a list of {{type, function: {{name, description, parameters}}}}, "
            f"got {value!r:.80}."
        )
    return tools


def as_rows(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return messages as a row of a column of type `CONVERSATION` holds them."""
    return [
        message.chat | ({"tool_calls": [_call_row(call) for call in message.calls]} if message.calls else {})
        for message in messages
    ]


def _call_row(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    return call.chat | {"function": {"name": call.name, "arguments": arguments}}


def as_messages(content: object, role: Role, where: str) -> tuple[Message, ...]:
    """Return what a row holds as messages.

    Args:
        content: A text, which is a message of `role`, or a list of ``{role, content}``.
        role: See `content`.
        where: Column and row, for the error message.

    Raises:
        DataError: It is empty or something else.
    """
    if isinstance(content, str):
        return (Message(role, content),)
    if hasattr(content, "tolist"):  # an array, as pandas reads lists
        content = content.tolist()
    if content is None or (isinstance(content, Sequence) and not content):
        raise DataError(f"{where}: expected a string or messages, got {'nothing' if content is None else 'none'}.")
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise DataError(f"{where}: expected a string or messages, got {type(content).__name__}: {content!r:.80}.")
    for message in content:
        known = get_args(Role)
        got = message.get("role") if isinstance(message, Mapping) else message
        if not isinstance(message, Mapping) or got not in known:
            raise DataError(f"{where}: expected a role of {', '.join(known)}, got {got!r:.80}.")
        calls = message.get("tool_calls")
        if calls and got != "assistant":
            raise DataError(f"{where}: a message of role {got!r} calls tools, which an assistant does.")
        if message.get("content") is None and not calls:
            raise DataError(f"{where}: a message of role {got!r} has no content.")
        for name in ("content", "name", "tool_call_id"):
            if not isinstance(text := message.get(name), str | None):
                raise DataError(f"{where}: expected a string as {name} of a message, got {text!r:.80}.")
    try:
        return tuple(map(message_in, content))
    except EnvironmentContractError as error:
        raise DataError(f"{where}: {error}") from None
    except (KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(
            f"{where}: expected tool_calls as a list of {{function: {{name, arguments}}}}, arguments being an object "
            "or JSON of one."
        ) from None


def message_in(row: Mapping[str, Any]) -> Message:
    """Return a message of a file."""
    calls = tuple(map(_call_in, row.get("tool_calls") or ()))
    return Message(row["role"], row.get("content") or "", row.get("name"), row.get("tool_call_id"), calls)


def _call_in(row: Mapping[str, Any]) -> ToolCall:
    """Return a call of a file.

    Raises:
        KeyError, TypeError, AttributeError: It is none.
    """
    function = row.get("function") or row
    arguments = _read(function["arguments"] or {})
    if not isinstance(function["name"], str) or not isinstance(arguments, dict):
        raise TypeError(f"not a call: {row!r:.80}")
    return ToolCall(function["name"], arguments, row.get("id"))


def _read(value: Any) -> Any:
    """Return what a value stands for that may be JSON in a text; None if that is none."""
    if not isinstance(value, str):
        return _full(value)
    try:
        return from_json(value)
    except ValueError:
        return None


def _full(value: Any) -> Any:
    """Return a value without what Arrow fills in where objects of one column have different keys."""
    if isinstance(value, list):
        return [_full(one) for one in value]
    if isinstance(value, dict):
        return {key: _full(one) for key, one in value.items() if one is not None}
    return value


def _list(words: Sequence[str]) -> str:
    return ", ".join(words) or "none"

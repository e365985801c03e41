"""Conversations in Parquet: lists of ``{role, content}``, or a plain string where one message is meant."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from llmgym.errors import DataError, did_you_mean
from llmgym.types import Message, Role

CONVERSATION = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
"""The type of a column that holds conversations."""


def read_table(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> tuple[pa.Table, dict[str, Any]]:
    """Read columns of a Parquet file, whoever wrote it; page checksums are verified where there are some.

    Args:
        path: The file.
        columns: What has to be there.
        optional: What is read too if it is there.

    Returns:
        The table, and what llmgym wrote beside it: ``kind`` and ``version``; empty if another program wrote it.

    Raises:
        DataError: There is no such file, it is damaged or no Parquet, or it lacks a column.
    """
    choose_columns(path, tuple(columns))
    with _opened(path) as file:
        table = file.read([*columns, *(name for name in optional if name in file.schema_arrow.names)])
        return table, json.loads((file.schema_arrow.metadata or {}).get(b"llmgym", b"{}"))


def choose_columns(path: Path, *layouts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the first of several sets of columns that a Parquet file has all of.

    Raises:
        DataError: There is no such file, it is damaged or no Parquet, or it has none of the sets.
    """
    with _opened(path) as file:
        there = file.schema_arrow.names
    for layout in layouts:
        if set(layout) <= set(there):
            return layout
    nearest = max(layouts, key=lambda layout: (len(set(layout) & set(there)), -len(layout)))
    missing = next(column for column in nearest if column not in there)
    raise DataError(
        f"{str(path)!r} has no column {missing!r}.{did_you_mean(missing, there)} "
        f"Expected {' or '.join(', '.join(layout) for layout in layouts)}, got {', '.join(there) or 'none'}."
    )


def column_of_conversations(table: pa.Table, column: str, role: Role) -> list[tuple[Message, ...]]:
    """Return a column as conversations; a plain string is one message of `role`.

    Raises:
        DataError: The column has another type, or a row is empty or has a message without
            role or content; rows are counted from 0.
    """
    kind = table.schema.field(column).type
    if not (_is_text(kind) or _is_conversation(kind)):
        raise DataError(f"Column {column!r}: expected strings or lists of {{role, content}}, got {kind}.")
    return [_as_messages(value, role, f"Column {column!r}, row {row}") for row, value in enumerate(table[column])]


def column_of_numbers(table: pa.Table, column: str) -> list[float | None]:
    """Return a column of numbers, None where one is null; all are None if the table has no such column.

    Raises:
        DataError: The column has another type, or a number is not finite.
    """
    if column not in table.column_names:
        return [None] * len(table)
    kind = table.schema.field(column).type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise DataError(f"Column {column!r}: expected numbers, got {kind}.")
    values = [None if value is None else float(value) for value in table[column].to_pylist()]
    for row, value in enumerate(values):
        if value is not None and not abs(value) < float("inf"):
            raise DataError(f"Column {column!r}, row {row}: expected a finite number or null, got {value}.")
    return values


def column_of_booleans(table: pa.Table, column: str) -> list[bool]:
    """Return a column of booleans.

    Raises:
        DataError: The column has another type, or a row is null.
    """
    kind = table.schema.field(column).type
    if not pa.types.is_boolean(kind):
        raise DataError(f"Column {column!r}: expected true or false, got {kind}.")
    values: list[bool | None] = table[column].to_pylist()
    if None in values:
        raise DataError(f"Column {column!r}, row {values.index(None)}: expected true or false, got null.")
    return [value is True for value in values]


def check_reply(messages: Sequence[Message], where: str) -> None:
    """Check that messages can follow a prompt: assistant and user take turns, the assistant first and last.

    Raises:
        DataError: They do not.
    """
    expected = ["assistant" if i % 2 == 0 else "user" for i in range(len(messages))]
    roles = [message.role for message in messages]
    if roles != expected or len(roles) % 2 == 0:
        raise DataError(f"{where}: expected assistant and user in turn, assistant first and last, got {_list(roles)}.")


def check_prompt(messages: Sequence[Message], where: str) -> None:
    """Check that a reply can follow messages.

    Raises:
        DataError: The last one is not the user's.
    """
    if not messages or messages[-1].role != "user":
        roles = [message.role for message in messages]
        raise DataError(f"{where}: expected messages of which the last is the user's, got {_list(roles)}.")


def as_rows(messages: Sequence[Message]) -> list[Mapping[str, str]]:
    """Return messages as a row of a column of type `CONVERSATION` holds them."""
    return [{"role": message.role, "content": message.content} for message in messages]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    if not path.is_file():
        what = "expected a file, got a directory" if path.is_dir() else "no such file"
        raise DataError(f"{str(path)!r}: {what}.")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:  # OSError: a checksum that does not match
        raise DataError(f"{str(path)!r} cannot be read as Parquet: {error}") from error


def _as_messages(value: pa.Scalar, role: Role, where: str) -> tuple[Message, ...]:
    content = value.as_py()
    if isinstance(content, str):
        return (Message(role, content),)
    if not content:
        raise DataError(f"{where}: expected a string or messages, got {'nothing' if content is None else 'none'}.")
    for message in content:
        known = get_args(Role)
        if message is None or message["role"] not in known:
            got = None if message is None else message["role"]
            raise DataError(f"{where}: expected a role of {', '.join(known)}, got {got!r}.")
        if message["content"] is None:
            raise DataError(f"{where}: a message of role {message['role']!r} has no content.")
    return tuple(Message(message["role"], message["content"]) for message in content)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_conversation(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    names = [field.name for field in kind.value_type if _is_text(field.type)]
    return "role" in names and "content" in names


def _list(words: Sequence[str]) -> str:
    return ", ".join(words) or "none"

"""Files of rows: Parquet, JSON lines or CSV; conversations in them are lists of ``{role, content}``, or a string."""

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import pyarrow as pa
import pyarrow.csv
import pyarrow.json as json_lines
import pyarrow.parquet as pq

from llmgym.calls import Schemas, ToolCall
from llmgym.errors import DataError, did_you_mean
from llmgym.types import Message, Role, answers, asks

Row = TypeVar("Row")

_JSON_LINES = ".jsonl", ".ndjson"
_CSV = ".csv"
_LONGEST_LINE = 2**26  # bytes

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


def read_table(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> tuple[pa.Table, dict[str, Any]]:
    """Read columns of a file, whoever wrote it; page checksums of Parquet are verified where there are some.

    Args:
        path: The file.
        columns: What has to be there.
        optional: What is read too if it is there.

    Returns:
        The table, and what llmgym wrote beside it: ``kind`` and ``version``; empty if another program wrote it.

    Raises:
        DataError: There is no such file, it is damaged or of another kind, lacks a column, or has no row.
    """
    choose_columns(path, tuple(columns))
    with _opened(path) as file:
        table = file.read([*columns, *(name for name in optional if name in file.schema_arrow.names)])
        if not len(table):
            raise DataError(f"{str(path)!r}: expected rows, got a table without rows.")
        return table, json.loads((file.schema_arrow.metadata or {}).get(b"llmgym", b"{}"))


def read_whole(path: Path) -> pa.Table:
    """Read all columns of a file.

    Raises:
        DataError: There is no such file, it is damaged or of another kind, or has no row.
    """
    with _opened(path) as file:
        return read_table(path, file.schema_arrow.names)[0]


def choose_columns(path: Path, *layouts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the first of several sets of columns that a file has all of.

    Raises:
        DataError: There is no such file, it is damaged or of another kind, or it has none of the sets.
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


Reader = Callable[[int], Row]
"""Returns the content of a row of a table, counted from 0; raises a DataError that names column and row."""


def read_rows(table: pa.Table, read: Reader[Row], skipped: list[str] | None = None) -> list[Row]:
    """Read every row of a table.

    Args:
        table: The table.
        read: Reads one of its rows.
        skipped: Is given what is wrong with rows that cannot be read, which are then left out; None to raise it.

    Raises:
        DataError: A row cannot be read, or none can.
    """
    rows = []
    for row in range(len(table)):
        try:
            rows.append(read(row))
        except DataError as error:
            if skipped is None:
                raise
            skipped.append(str(error))
    if not rows:
        raise DataError(
            f"expected a row that can be read, got none ({skipped[0]})"
            if skipped
            else "expected rows, got a table without rows."
        )
    return rows


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name a file in the errors that come up while it is read."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{str(path)!r}: {error}") from None


def conversations_in(table: pa.Table, column: str, role: Role) -> Reader[tuple[Message, ...]]:
    """Return what reads a column as conversations; a plain string is one message of `role`.

    Raises:
        DataError: The column has another type. Reading one raises it if the row is empty or has a
            message without role or content.
    """
    kind = table.schema.field(column).type
    if not (_is_text(kind) or _is_conversation(kind)):
        raise DataError(f"Column {column!r}: expected strings or lists of {{role, content}}, got {kind}.")
    values = table[column].combine_chunks()
    return lambda row: _as_messages(values[row], role, f"Column {column!r}, row {row}")


def numbers_in(table: pa.Table, column: str) -> Reader[float | None]:
    """Return what reads a column of numbers, None where one is null; all are None if the table has no such column.

    Raises:
        DataError: The column has another type. Reading one raises it if the number is not finite.
    """
    if column not in table.column_names:
        return lambda row: None
    kind = table.schema.field(column).type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise DataError(f"Column {column!r}: expected numbers, got {kind}.")
    values = [None if value is None else float(value) for value in table[column].to_pylist()]

    def read(row: int) -> float | None:
        value = values[row]
        if value is not None and not math.isfinite(value):
            raise DataError(f"Column {column!r}, row {row}: expected a finite number or null, got {value}.")
        return value

    return read


def booleans_in(table: pa.Table, column: str) -> Reader[bool]:
    """Return what reads a column of booleans.

    Raises:
        DataError: The column has another type. Reading one raises it if the row is null.
    """
    kind = table.schema.field(column).type
    if not pa.types.is_boolean(kind):
        raise DataError(f"Column {column!r}: expected true or false, got {kind}.")
    values: list[bool | None] = table[column].to_pylist()

    def read(row: int) -> bool:
        value = values[row]
        if value is None:
            raise DataError(f"Column {column!r}, row {row}: expected true or false, got null.")
        return value

    return read


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


def tools_in(table: pa.Table) -> Reader[Schemas]:
    """Return what reads the column ``tools``: JSON schemas, as they are or as JSON; none if there is no such column.

    Raises:
        DataError: Reading one raises it if it is something else.
    """
    if "tools" not in table.column_names:
        return lambda row: ()
    values = table["tools"].to_pylist()

    def read(row: int) -> Schemas:
        listed = _read(values[row] or [])
        tools = tuple(map(_read, listed)) if isinstance(listed, list) else (None,)
        if not all(isinstance(tool, dict) and isinstance(tool.get("function"), dict) for tool in tools):
            raise DataError(
                f"Column 'tools', row {row}: expected a list of {{type, function: {{name, description, parameters}}}}, "
                f"got {values[row]!r:.80}."
            )
        return tools

    return read


def as_rows(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return messages as a row of a column of type `CONVERSATION` holds them."""
    return [
        message.chat | ({"tool_calls": [_call_row(call) for call in message.calls]} if message.calls else {})
        for message in messages
    ]


def _call_row(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    return call.chat | {"function": {"name": call.name, "arguments": arguments}}


class _Table:
    """A file that is read as a whole, with what is read of a Parquet file."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.schema_arrow = table.schema

    def read(self, columns: Sequence[str]) -> pa.Table:
        return self._table.select(columns)


def _json_lines(path: Path) -> pa.Table:
    """Read JSON objects, one per line."""
    options = json_lines.ReadOptions(block_size=_LONGEST_LINE)
    table = json_lines.read_json(path, read_options=options)
    schema = pa.schema([field.with_type(_as_written(field.type)) for field in table.schema])
    if schema == table.schema:
        return table
    return json_lines.read_json(
        path, read_options=options, parse_options=json_lines.ParseOptions(explicit_schema=schema)
    )


def _as_written(kind: pa.DataType) -> pa.DataType:
    """Return a type of JSON with text where Arrow took text for a time."""
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_as_written(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(_as_written(kind.value_type))
    return pa.string() if pa.types.is_temporal(kind) else kind


def _csv(path: Path) -> pa.Table:
    """Read CSV with a header; every column is text, as it is in the file."""
    options = pyarrow.csv.ReadOptions(block_size=_LONGEST_LINE)
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    with pyarrow.csv.open_csv(path, read_options=options, parse_options=parsing) as file:
        kinds = dict.fromkeys(file.schema.names, pa.string())
    converting = pyarrow.csv.ConvertOptions(column_types=kinds)
    return pyarrow.csv.read_csv(path, read_options=options, parse_options=parsing, convert_options=converting)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile | _Table]:
    if not path.is_file():
        what = "expected a file, got a directory" if path.is_dir() else "no such file"
        raise DataError(f"{str(path)!r}: {what}.")
    whole = {_CSV: _csv, **dict.fromkeys(_JSON_LINES, _json_lines)}.get(path.suffix)
    try:
        if whole is not None:
            yield _Table(whole(path))
            return
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:  # OSError: a checksum that does not match
        kind = f"Parquet, as any file that does not end in {', '.join(_JSON_LINES)} or {_CSV}"
        if whole is not None:
            kind = "CSV" if path.suffix == _CSV else "JSON lines"
        raise DataError(f"{str(path)!r} cannot be read as {kind}: {error}") from error


def _as_messages(value: pa.Scalar, role: Role, where: str) -> tuple[Message, ...]:
    try:
        content = value.as_py()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: expected text in UTF-8, got something else ({error.reason}).") from None
    return as_messages(content, role, where)


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
    if not isinstance(content, Sequence):
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
    except (KeyError, TypeError, AttributeError):
        raise DataError(
            f"{where}: expected tool_calls as a list of {{function: {{name, arguments}}}}, arguments being an object "
            "or JSON of one."
        ) from None


def message_in(row: Mapping[str, Any]) -> Message:
    """Return a message of a file."""
    calls = tuple(map(_call_in, row.get("tool_calls") or ()))
    return Message(row["role"], row["content"] or "", row.get("name"), row.get("tool_call_id"), calls)


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
        return json.loads(value)
    except ValueError:
        return None


def _full(value: Any) -> Any:
    """Return a value without what Arrow fills in where objects of one column have different keys."""
    if isinstance(value, list):
        return [_full(one) for one in value]
    if isinstance(value, dict):
        return {key: _full(one) for key, one in value.items() if one is not None}
    return value


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_conversation(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    names = [field.name for field in kind.value_type if _is_text(field.type)]
    return "role" in names and "content" in names


def _list(words: Sequence[str]) -> str:
    return ", ".join(words) or "none"

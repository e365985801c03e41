"""Files of rows: Parquet, JSON lines or CSV; conversations in them are lists of ``{role, content}``, or a string."""

import codecs
import contextlib
import csv
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from llmgym.calls import Schemas, ToolCall
from llmgym.errors import DataError, EnvironmentContractError, did_you_mean
from llmgym.types import Message, Role, answers, asks

Row = TypeVar("Row")

_JSON_LINES = ".jsonl", ".ndjson"
_CSV = ".csv"
_LONGEST_LINE = 2**26  # bytes of CSV
_DEEPEST = 100  # JSON values within one another: whoever walks through them does so by recursion
_TOO_DEEP = f"more than {_DEEPEST} values within one another"
_AT_ONCE = 1000  # rows of Arrow that become Python objects at the same time
_UNREADABLE = ValueError, ArithmeticError, LookupError, pa.ArrowException  # what Arrow raises of a value it cannot give

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


class Table(ABC):
    """Rows of a file, by number; one becomes Python objects when it is asked for.

    Attributes:
        columns: Their names. Every row has all of them; what a row lacks is None.
        label: What llmgym wrote beside the rows: ``kind`` and ``version``; empty if another program wrote them.
    """

    def __init__(self, columns: Sequence[str], label: Mapping[str, Any] | None = None) -> None:
        self.columns = tuple(columns)
        self.label = dict(label or {})

    @abstractmethod
    def __len__(self) -> int:
        """Return how many there are."""

    @abstractmethod
    def __getitem__(self, row: int, /) -> dict[str, Any]:
        """Return one, as objects of the caller's own.

        Raises:
            DataError: It cannot be read. The message names the row.
        """

    def each(self) -> Iterator[dict[str, Any] | DataError]:
        """Yield every row, or what is wrong with it."""
        for row in range(len(self)):
            yield self._row_or_error(row)

    def _row_or_error(self, row: int) -> dict[str, Any] | DataError:
        try:
            return self[row]
        except DataError as error:
            return error


Choice = Callable[[Sequence[str]], Sequence[str]]
"""Returns which columns to read of those that are there."""


def read_table(path: Path, *layouts: tuple[str, ...], optional: Sequence[str] = ()) -> Table:
    """Read columns of a file, whoever wrote it; page checksums of Parquet are verified where there are some.

    Args:
        path: The file.
        layouts: Sets of columns; the first that the file has all of is read.
        optional: What is read too if it is there.

    Returns:
        The rows; their columns are those of a layout and then the optional ones.

    Raises:
        DataError: There is no such file, it is damaged or of another kind, has none of the layouts or a column twice,
            or has no row.
    """

    def choose(there: Sequence[str]) -> list[str]:
        for layout in layouts:
            if set(layout) <= set(there):
                return [*layout, *(name for name in there if name in optional)]
        nearest = max(layouts, key=lambda layout: (len(set(layout) & set(there)), -len(layout)))
        missing = next(column for column in nearest if column not in there)
        raise DataError(
            f"{str(path)!r} has no column {missing!r}.{did_you_mean(missing, there)} "
            f"Expected {' or '.join(', '.join(layout) for layout in layouts)}, got {', '.join(there) or 'none'}."
        )

    return _read_file(path, choose)


def read_whole(path: Path) -> Table:
    """Read all columns of a file.

    Raises:
        DataError: There is no such file, it is damaged or of another kind, has a column twice, or has no row.
    """
    return _read_file(path, lambda there: there)


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


def _read_file(path: Path, choose: Choice) -> Table:
    if not path.is_file():
        what = "expected a file, got a directory" if path.is_dir() else "no such file"
        raise DataError(f"{str(path)!r}: {what}.")

    def choose_once(there: Sequence[str]) -> list[str]:
        chosen = dict.fromkeys(choose(there))
        twice = [name for name in chosen if there.count(name) > 1]
        if twice:
            names = ", ".join(map(repr, twice))
            raise DataError(f"{str(path)!r}: expected columns of different names, got {names} more than once.")
        return list(chosen)

    kind = f"Parquet, as any file that does not end in {', '.join(_JSON_LINES)} or {_CSV}"
    read: Callable[[Path, Choice], Table] = _parquet
    if path.suffix == _CSV:
        kind, read = "CSV", _csv
    elif path.suffix in _JSON_LINES:
        kind, read = "JSON lines", _JsonLines
    try:
        table = read(path, choose_once)
    except (pa.ArrowException, csv.Error, OSError) as error:  # OSError: a checksum that does not match
        raise DataError(f"{str(path)!r} cannot be read as {kind}: {error}") from error
    if not len(table):
        raise DataError(f"{str(path)!r}: expected rows, got a table without rows.")
    return table


class _ArrowTable(Table):
    """Rows as Arrow holds them."""

    def __init__(self, table: pa.Table, label: Mapping[str, Any] | None = None) -> None:
        super().__init__(table.column_names, label)
        self._table = table.combine_chunks()

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, row: int, /) -> dict[str, Any]:
        content = {}
        for column in self.columns:
            try:
                content[column] = self._table[column][row].as_py()
            except UnicodeDecodeError as error:
                raise DataError(f"Column {column!r}, row {row}: {_no_text(error)}.") from None
            except _UNREADABLE as error:
                why = f"{type(error).__name__}: {error}"
                raise DataError(f"Column {column!r}, row {row}: expected a value, got none ({why}).") from None
        return content

    def each(self) -> Iterator[dict[str, Any] | DataError]:
        for start in range(0, len(self), _AT_ONCE):
            some = self._table.slice(start, _AT_ONCE)
            try:
                yield from some.to_pylist()
            except _UNREADABLE:
                yield from map(self._row_or_error, range(start, start + len(some)))


def _parquet(path: Path, choose: Choice) -> Table:
    """Read Parquet; dates and times become text, as they are in other files, and durations a number of their unit."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        columns = choose(file.schema_arrow.names)
        table = file.read(columns).select(columns)
        label = json.loads((file.schema_arrow.metadata or {}).get(b"llmgym", b"{}"))
    for change in (_in_utc, _as_written):
        schema = pa.schema([field.with_type(_within(field.type, change)) for field in table.schema])
        table = table if schema == table.schema else table.cast(schema)
    return _ArrowTable(table, label)


def _in_utc(kind: pa.DataType) -> pa.DataType:
    """Return a type with UTC in place of another time zone, which may not be known here."""
    return pa.timestamp(kind.unit, "UTC") if pa.types.is_timestamp(kind) and kind.tz else kind


def _as_written(kind: pa.DataType) -> pa.DataType:
    """Return a type that holds the values of another one but for times, of which Python has fewer than Arrow."""
    if pa.types.is_duration(kind):
        return pa.int64()
    return pa.string() if pa.types.is_date(kind) or pa.types.is_time(kind) or pa.types.is_timestamp(kind) else kind


def _within(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Return a type with whatever it is made of changed."""
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_within(field.type, change)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_within(kind.key_type, change), _within(kind.item_type, change))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = kind.value_field.with_type(_within(kind.value_type, change))
        if pa.types.is_fixed_size_list(kind):
            return pa.list_(inner, kind.list_size)
        return pa.large_list(inner) if pa.types.is_large_list(kind) else pa.list_(inner)
    return change(kind)


def _csv(path: Path, choose: Choice) -> Table:
    """Read CSV with a header; every column is text, as it is in the file."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        count = len(next(filter(None, csv.reader(file)), ()))
    table = pyarrow.csv.read_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(
            use_threads=False,  # with threads, errors name no row
            block_size=_LONGEST_LINE,
            autogenerate_column_names=True,
        ),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        # Text that is not UTF-8 is the fault of its row.
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={f"f{number}": pa.string() for number in range(count)}, check_utf8=False
        ),
    )
    try:
        header = [column[0].as_py() for column in table.columns]
    except UnicodeDecodeError as error:
        raise DataError(f"{str(path)!r}, names of columns: {_no_text(error)}.") from None
    table = table.slice(1)
    # A comma at the end of every line, as spreadsheets leave it, makes no column.
    held = [n for n, name in enumerate(header) if name or pc.any(pc.not_equal(pc.binary_length(table[n]), 0)).as_py()]
    table = table.select(held).rename_columns([header[n] for n in held])
    return _ArrowTable(table.select(choose(table.column_names)))


class _JsonLines(Table):
    """JSON objects, one per line. The lines are held as they are in the file, and read when a row is asked for."""

    def __init__(self, path: Path, choose: Choice) -> None:
        with path.open("rb") as file:
            self._lines = [line.rstrip(b"\r\n") for line in file]
        self._lines[:1] = [line.removeprefix(codecs.BOM_UTF8) for line in self._lines[:1]]
        self._places = np.flatnonzero([bool(line.strip()) for line in self._lines])
        if not len(self):
            raise DataError(f"{str(path)!r} cannot be read as JSON lines: expected an object on a line, got none.")
        names: dict[str, None] = {}
        first: DataError | None = None
        for row in range(len(self)):
            try:
                names |= dict.fromkeys(self._object(row))
            except DataError as error:
                first = first or error
        if first and not names:
            raise DataError(f"{str(path)!r}: {first}")
        super().__init__(choose(list(names)))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, row: int, /) -> dict[str, Any]:
        content = self._object(row)
        return {column: content.get(column) for column in self.columns}

    def _object(self, row: int) -> dict[str, Any]:
        place = int(self._places[row])
        try:
            line = self._lines[place].decode()
            value = _from_json(line)
            if isinstance(value, dict):
                return value
            problem = f"expected one object, got {type(value).__name__}"
        except UnicodeDecodeError as error:
            problem = _no_text(error)
        except ValueError as error:
            problem = f"expected one object, got {line[:60]!r} ({error})"
        raise DataError(f"Row {row} (line {place + 1}) cannot be read as JSON lines: {problem}.")


def _no_text(error: UnicodeDecodeError) -> str:
    return f"expected text in UTF-8, got {error.object[error.start : error.end]!r}"


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
        return _from_json(value)
    except ValueError:
        return None


def _from_json(text: str) -> Any:
    """Return the value that a JSON text has.

    Raises:
        ValueError: It has none, a name is twice in an object, or values are nested too deeply.
    """
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg.removesuffix(' at')} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if text.count("[") + text.count("{") > _DEEPEST and _is_deep(value):
        raise ValueError(_TOO_DEEP)
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        inner = (one.values() if isinstance(one, dict) else one for one in level)
        level = [one for ones in inner for one in ones if isinstance(one, dict | list)]
    return bool(level)


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in found if names.count(name) > 1)!r:.80} is there twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_named_once)


def _full(value: Any) -> Any:
    """Return a value without what Arrow fills in where objects of one column have different keys."""
    if isinstance(value, list):
        return [_full(one) for one in value]
    if isinstance(value, dict):
        return {key: _full(one) for key, one in value.items() if one is not None}
    return value


def _list(words: Sequence[str]) -> str:
    return ", ".join(words) or "none"

"""Tables: the rows of a file, Parquet, JSON lines or CSV, by number."""

import codecs
import csv
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from llmgym.data.parquet import open_parquet
from llmgym.data.strict_json import from_json
from llmgym.errors import DataError, did_you_mean

_JSON_LINES = ".jsonl", ".ndjson"
_CSV = ".csv"
_LONGEST_CELL = 2**26  # characters of CSV
_AT_ONCE = 1000  # rows of Arrow that become Python objects at the same time
_UNREADABLE = ValueError, ArithmeticError, LookupError, pa.ArrowException  # what Arrow raises of a value it cannot give


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

    read: Callable[[Path, Choice], Table] = _parquet
    if path.suffix == _CSV:
        read = _CsvRows
    elif path.suffix in _JSON_LINES:
        read = _JsonLines
    table = read(path, choose_once)
    if not len(table):
        raise DataError(f"{str(path)!r}: expected rows, got a table without rows.")
    return table


class ArrowTable(Table):
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
        """Yield every row, or what is wrong with it; rows become Python objects many at a time."""
        for start in range(0, len(self), _AT_ONCE):
            some = self._table.slice(start, _AT_ONCE)
            try:
                yield from some.to_pylist()
            except _UNREADABLE:
                yield from map(self._row_or_error, range(start, start + len(some)))


def _parquet(path: Path, choose: Choice) -> Table:
    """Read Parquet; dates and times become text, as they are in other files, and durations a number of their unit."""
    kind = f"Parquet, as any file that does not end in {', '.join(_JSON_LINES)} or {_CSV}"
    with open_parquet(path, kind) as (file, label):
        columns = choose(file.schema_arrow.names)
        table = file.read(columns).select(columns)
        for change in (_in_utc, _as_written):
            schema = pa.schema([field.with_type(_within(field.type, change)) for field in table.schema])
            table = table if schema == table.schema else table.cast(schema)
        return ArrowTable(table, label)


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


class _CsvRows(Table):
    """Rows of CSV with a header; every cell is text, as it is in the file. A line that has other cells is an error."""

    def __init__(self, path: Path, choose: Choice) -> None:
        lines = _lines_of(path)
        header = next((cells for _, cells in lines), [])
        try:
            names = [_decoded(name) for name in header]
        except UnicodeDecodeError as error:
            raise DataError(f"{str(path)!r}, names of columns: {_no_text(error)}.") from None
        self._lines, self._count = lines[1:], len(header)
        # A comma at the end of every line, as spreadsheets leave it, makes no column.
        full = [cells for _, cells in self._lines if len(cells) == self._count]
        held = [place for place, name in enumerate(names) if name or any(cells[place] for cells in full)]
        self._places = {names[place]: place for place in held}
        super().__init__(choose([names[place] for place in held]))

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, row: int, /) -> dict[str, Any]:
        line, cells = self._lines[row]
        if len(cells) != self._count:
            raise DataError(
                f"Row {row} (line {line}): expected {self._count} cells, as the header has, got {len(cells)}."
            )
        content = {}
        for column in self.columns:
            try:
                content[column] = _decoded(cells[self._places[column]])
            except UnicodeDecodeError as error:
                raise DataError(f"Column {column!r}, row {row}: {_no_text(error)}.") from None
        return content


def _lines_of(path: Path) -> list[tuple[int, list[str]]]:
    """Return the cells of every line of CSV that is not blank, and the number of the line; bytes that are no text stay.

    Raises:
        DataError: It cannot be read, a quotation mark is not closed, or something follows one.
    """
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            return [(reader.line_num, cells) for cells in reader if cells]
    except (csv.Error, OSError) as error:
        raise DataError(f"{str(path)!r} cannot be read as CSV: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _decoded(cell: str) -> str:
    """Return a cell if it is text.

    Raises:
        UnicodeDecodeError: It has bytes that are not UTF-8.
    """
    return cell if cell.isascii() else cell.encode("utf-8", "surrogateescape").decode()


class _JsonLines(Table):
    """JSON objects, one per line. The lines are held as they are in the file, and read when a row is asked for."""

    def __init__(self, path: Path, choose: Choice) -> None:
        try:
            with path.open("rb") as file:
                self._lines = [line.rstrip(b"\r\n") for line in file]
        except OSError as error:
            raise DataError(f"{str(path)!r} cannot be read as JSON lines: {error}") from error
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
            value = from_json(line)
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

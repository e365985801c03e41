"""Rows of tasks: a prompt each, an answer where there is one, and whatever a scorer reads.

A table is read once and shared by everybody who plays its rows.
"""

import copy
import json
import threading
import weakref
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from llmgym.data.conversations import as_messages, check_prompt
from llmgym.data.tables import Table, read_whole
from llmgym.errors import DataError, did_you_mean
from llmgym.types import Message


@runtime_checkable
class Rows(Protocol):
    """Rows by number, such as a list of mappings or a `datasets.Dataset`."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __getitem__(self, row: int, /) -> Any:
        """Return one as a mapping from columns to values."""
        ...


class TaskTable:
    """Tasks in the rows of a file or of a sequence, checked when the table is made.

    It stays as it is, so that copies of it are the table itself.

    Args:
        rows: The path of a file (Parquet, JSON lines or CSV), or mappings by number.
        prompt_column: The column of prompts: texts, or lists of ``{role, content}``.
        answer_column: The column of answers. None: ``answer``, or else ``ground_truth`` of verl's ``reward_model``, if
            there is one.
        skip_bad_rows: Leave out rows that cannot be read; `skipped` says what is wrong with them.

    Attributes:
        name: What error messages call it.
        rows: The numbers of the rows that are played, counted from 0 in the file or sequence.
        skipped: What is wrong with the rows that were left out.

    Raises:
        DataError: The file cannot be read, there is no row, or a row is not a task. The message names the row.

    Example:
        >>> table = TaskTable([{"prompt": "2 + 3?", "answer": "5"}, {"prompt": "4 + 4?", "answer": "8"}])
        >>> len(table), table.prompt(1)[0].content, table.task(1)["answer"]
        (2, '4 + 4?', '8')
    """

    def __init__(
        self,
        rows: "str | Path | Rows",
        *,
        prompt_column: str = "prompt",
        answer_column: str | None = None,
        skip_bad_rows: bool = False,
    ) -> None:
        if not isinstance(rows, str | Path) and (not isinstance(rows, Rows) or isinstance(rows, Mapping | bytes)):
            raise DataError(
                f"rows: expected a path, a list of mappings or an object with rows by number, got "
                f"{type(rows).__name__}: {rows!r:.80}"
            )
        self.name = repr(str(rows)) if isinstance(rows, str | Path) else f"rows of a {type(rows).__name__}"
        self._source: Rows = read_whole(Path(rows)) if isinstance(rows, str | Path) else rows
        self._prompt_column, self._answer_column = prompt_column, answer_column
        self.skipped: list[str] = []
        kept, keys = [], []
        for row, content in enumerate(_each(self._source)):
            try:
                keys.append(_key(self._checked(content, row)))
                kept.append(row)
            except DataError as error:
                if not skip_bad_rows:
                    raise
                self.skipped.append(str(error))
        if not kept:
            why = f"got none ({self.skipped[0]})" if self.skipped else "got none."
            raise DataError(f"{self.name}: expected a row that can be played, {why}")
        self.rows: NDArray[np.int64] = np.array(kept, dtype=np.int64)
        self._keys: NDArray[np.int64] = np.array(keys, dtype=np.int64)  # equal for equal prompts

    def __len__(self) -> int:
        """Return how many rows are played."""
        return len(self.rows)

    def __repr__(self) -> str:
        return f"<{len(self):,} {self.name}>"

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def prompt(self, row: int) -> tuple[Message, ...]:
        """Return the prompt of a row as messages."""
        return self._checked(self._source[self._known(row)], row)

    def task(self, row: int) -> dict[str, Any]:
        """Return all columns of a row, with its prompt and its answer under these names too."""
        content = self._source[self._known(row)]
        if not isinstance(self._source, Table):
            content = copy.deepcopy(dict(content))  # whoever is given it may change it
        task = {**content, "prompt": content[self._prompt_column]}
        answer = self._answer(content, row)
        return task if answer is None else {**task, "answer": answer}

    def only(self, rows: Iterable[int]) -> "TaskTable":
        """Return the table of some of its rows; the numbers of rows stay as they are."""
        wanted = np.isin(self.rows, np.fromiter(rows, dtype=np.int64))
        return self._where(wanted)

    def without_prompts_of(self, other: "TaskTable") -> "TaskTable | None":
        """Return the table of the rows whose prompts another one has not; None if there are none."""
        apart = ~np.isin(self._keys, other._keys)
        return self if apart.all() else self._where(apart) if apart.any() else None

    def in_memory(self) -> "TaskTable":
        """Return the same table with the rows that are played as mappings, which another process can be given."""
        copied = self._where(np.ones(len(self), dtype=np.bool_))
        copied._source = {row: self._source[row] for row in self.rows.tolist()}
        return copied

    def _where(self, wanted: NDArray[np.bool_]) -> "TaskTable":
        part = object.__new__(TaskTable)
        part.__dict__ = {**self.__dict__, "rows": self.rows[wanted], "_keys": self._keys[wanted]}
        return part

    def _known(self, row: int) -> int:
        number = row if isinstance(row, int | np.integer) and not isinstance(row, bool) else -1
        place = int(np.searchsorted(self.rows, number))
        if place == len(self.rows) or self.rows[place] != number:
            raise DataError(f"{self.name}: expected the number of one of {len(self)} rows, got {row!r:.80}.")
        return int(number)

    def _checked(self, content: Any, row: int) -> tuple[Message, ...]:
        """Return the prompt of a row, if it is one."""
        if isinstance(content, DataError):
            raise DataError(f"{self.name}: {content}")
        if not isinstance(content, Mapping):
            raise DataError(
                f"{self.name}, row {row}: expected a mapping, got {type(content).__name__}: {content!r:.80}"
            )
        column = self._prompt_column
        if column not in content:
            raise DataError(
                f"{self.name}, row {row}: no column {column!r}.{did_you_mean(column, map(str, content))} Columns: "
                f"{', '.join(map(str, content)) or 'none'}. Another one holds the prompts with prompt_column."
            )
        where = f"{self.name}, column {column!r}, row {row}"
        messages = as_messages(content[column], "user", where)
        check_prompt(messages, where)
        if any(message.role == "system" for message in messages[1:]):
            raise DataError(f"{where}: expected a system message only at the start.")
        if not any(message.content.strip() for message in messages if message.role != "system"):
            raise DataError(f"{where}: expected a prompt, got blank text.")
        self._answer(content, row)
        return messages

    def _answer(self, content: Mapping[str, Any], row: int) -> Any:
        column = self._answer_column
        if column is not None:
            if column not in content:
                raise DataError(
                    f"{self.name}, row {row}: no column {column!r}.{did_you_mean(column, map(str, content))} Columns: "
                    f"{', '.join(map(str, content))}."
                )
            return content[column]
        if "answer" in content:
            return content["answer"]
        model = content.get("reward_model")
        return model.get("ground_truth") if isinstance(model, Mapping) else None


def _key(messages: tuple[Message, ...]) -> int:
    """Return the same number for the same messages, whose calls have no hash of their own."""
    calls = [call.chat for message in messages for call in message.calls]
    said = tuple((one.role, one.content, one.name, one.call_id, len(one.calls)) for one in messages)
    return hash((said, json.dumps(calls, sort_keys=True) if calls else ""))


def _each(source: Rows) -> Iterator[Any]:
    """Yield all rows; for one that a file has and that cannot be read, what is wrong with it.

    Raises:
        DataError: They cannot be read by number.
    """
    if isinstance(source, Table):
        yield from source.each()
        return
    for number in range(len(source)):
        try:
            row = source[number]
        except (LookupError, TypeError, ValueError) as error:
            raise DataError(
                f"rows of a {type(source).__name__}: row {number} cannot be read by its number "
                f"({type(error).__name__}: {error}). Of a DataFrame, give frame.to_dict('records')."
            ) from error
        yield row


_tables: weakref.WeakValueDictionary[Hashable, TaskTable] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def shared_table(rows: "str | Path | Rows | TaskTable", **options: Any) -> TaskTable:
    """Return the table of some rows: the same one as long as somebody has it and its file stays the same.

    Args:
        rows: See `TaskTable`; one that is a table already is returned as it is.
        options: See `TaskTable`.
    """
    if isinstance(rows, TaskTable):
        return rows
    key = (*_identity(rows), *sorted(options.items()))
    with _lock:
        table = _tables.get(key)
        if table is None:
            table = _tables[key] = TaskTable(rows, **options)
        return table


def _identity(rows: Any) -> tuple[Hashable, ...]:
    """Return what tells rows from others; a table keeps its rows, so that no others have their id."""
    if not isinstance(rows, str | Path):
        return id(rows), len(rows) if isinstance(rows, Sequence) else 0
    path = Path(rows)
    if not path.is_file():
        return (str(path),)
    stat = path.stat()
    return str(path.resolve()), stat.st_mtime_ns, stat.st_size

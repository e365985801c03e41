"""A database in memory that can be asked anything and changed by nobody."""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmgym.envs.tools import ToolError

MAX_ROWS = 50  # that an answer shows
MAX_STEPS = 1_000_000  # of SQLite's virtual machine, per query
MAX_SECONDS = 5.0  # per query; steps end all others long before, so that answers do not depend on the clock
_STEPS_PER_LOOK = 1_000

_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 1_000,  # bytes of a text or a row, so that the steps bound the memory too
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 5_000,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 100,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 20,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
}

# Functions of the arguments alone: those of the clock and of chance would make two equal episodes differ.
# Nor may one call of a function take long, as printf('%1000000000d') does: steps are counted between calls.
_FUNCTIONS = frozenset(
    """
    abs avg ceil ceiling char coalesce concat concat_ws count cume_dist dense_rank first_value floor glob group_concat
    ifnull iif instr lag last_value lead length like lower ltrim max min mod nth_value ntile nullif percent_rank pow
    power rank replace round row_number rtrim sign sqrt string_agg substr substring sum total trim typeof unicode upper
    """.split()  # noqa: SIM905  # a list of names reads better without quotes
)


@dataclass(frozen=True, slots=True)
class Table:
    """A table and its rows.

    Example:
        >>> Table("books", ("id INTEGER PRIMARY KEY", "name TEXT"), [(1, "Blue Road")]).definition
        'CREATE TABLE books (id INTEGER PRIMARY KEY, name TEXT)'
    """

    name: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]

    @property
    def definition(self) -> str:
        """The statement that creates it."""
        return f"CREATE TABLE {self.name} ({', '.join(self.columns)})"


class Database:
    """Tables in memory, of which only queries are answered, each within limits.

    SQLite's authorizer allows reading the tables and functions that depend on their arguments alone; its progress
    handler ends a query after `MAX_STEPS`.

    Args:
        tables: What it holds.
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        for table in tables:
            marks = ", ".join("?" * len(table.columns))
            self._connection.execute(table.definition)
            self._connection.execute("BEGIN")
            self._connection.executemany(f"INSERT INTO {table.name} VALUES ({marks})", table.rows)
            self._connection.execute("COMMIT")
        self._tables = frozenset(table.name for table in tables)
        for limit, value in _LIMITS.items():
            self._connection.setlimit(limit, value)
        self._connection.set_authorizer(self._allows)
        self._connection.set_progress_handler(self._goes_too_far, _STEPS_PER_LOOK)
        self._looks, self._until = 0, 0.0

    def query(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]], bool]:
        """Answer a query.

        Returns:
            The names of the columns, the first `MAX_ROWS` rows, and whether there are more.

        Raises:
            ToolError: SQLite, or a limit, refuses it.
        """
        self._looks, self._until = 0, time.monotonic() + MAX_SECONDS
        try:
            cursor = self._connection.execute(sql)
            rows = cursor.fetchmany(MAX_ROWS + 1)
            cursor.close()
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise ToolError(_said(error)) from None
        columns = [column[0] for column in cursor.description or ()]
        return columns, rows[:MAX_ROWS], len(rows) > MAX_ROWS

    def close(self) -> None:
        """Give its memory back."""
        self._connection.close()

    def _allows(
        self, action: int, first: str | None, second: str | None, schema: str | None, source: str | None
    ) -> int:
        reads_table = action == sqlite3.SQLITE_READ and (first in self._tables or first == "sqlite_master")
        calls = action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FUNCTIONS
        allowed = reads_table or calls or action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE)
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    def _goes_too_far(self) -> bool:
        self._looks += 1
        return self._looks * _STEPS_PER_LOOK > MAX_STEPS or time.monotonic() > self._until


def _said(error: Exception) -> str:
    """Return what SQLite says, in terms of what the agent may do."""
    text = str(error)
    if text == "interrupted":
        return "the query takes too long"
    if text.startswith(("not authorized", "access to")):
        return f"{text}: only SELECT from the tables of the schema is allowed, without functions of time or chance"
    return text

"""Full-text search over documents in memory, by SQLite's FTS5."""

import re
import sqlite3
from collections.abc import Sequence

from llmgym.envs.search.world import Document
from llmgym.errors import ConfigError

RESULTS = 5
_MOST_CHARS, _MOST_WORDS = 500, 20  # of a query
_WORD = re.compile(r"\w+")


class Index:
    """Documents, ranked by how well their titles and texts match the words of a query (BM25).

    Args:
        documents: What is searched.

    Raises:
        ConfigError: The SQLite of this Python was built without FTS5.
    """

    def __init__(self, documents: Sequence[Document]) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        try:
            self._connection.execute("CREATE VIRTUAL TABLE documents USING fts5(id UNINDEXED, title, text)")
        except sqlite3.OperationalError as error:
            raise ConfigError(
                f"Search needs an SQLite with the extension FTS5; that of this Python, {sqlite3.sqlite_version}, has "
                f"none: {error}."
            ) from error
        self._connection.execute("BEGIN")
        rows = [(one.id, one.title, one.text) for one in documents]
        self._connection.executemany("INSERT INTO documents VALUES (?, ?, ?)", rows)
        self._connection.execute("COMMIT")

    def search(self, query: str) -> list[tuple[str, str, str]]:
        """Return id, title and an excerpt of the best matches, the best first; any word of the query may match."""
        words = _WORD.findall(query[:_MOST_CHARS])[:_MOST_WORDS]
        if not words:
            return []
        found: list[tuple[str, str, str]] = self._connection.execute(
            "SELECT id, title, snippet(documents, 2, '', '', '...', 12) FROM documents WHERE documents MATCH ? "
            "ORDER BY bm25(documents, 0, 5, 1), rowid LIMIT ?",
            (" OR ".join(f'"{word}"' for word in words), RESULTS),
        ).fetchall()
        return found

    def close(self) -> None:
        """Give its memory back."""
        self._connection.close()

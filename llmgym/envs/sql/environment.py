"""The environment: a question, a database, and queries to answer it with."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from llmgym.calls import ActionLike, ToolCall
from llmgym.envs.reading import tagged
from llmgym.envs.splits import Split, check_difficulty_and_split, draw_in_split
from llmgym.envs.sql.database import MAX_ROWS, Database, Table
from llmgym.envs.sql.questions import Question, draw_question
from llmgym.envs.sql.world import tables
from llmgym.envs.text_env import TextEnv
from llmgym.envs.tools import Tool
from llmgym.types import Episode


class Level(NamedTuple):
    """How many rows a database has."""

    people: int
    things: int
    events: int


LEVELS = (Level(60, 40, 120), Level(80, 40, 250), Level(100, 50, 400), Level(120, 50, 800))


@dataclass(frozen=True, slots=True)
class Asked:
    """One task: a question about a database, and its answer."""

    question: Question
    tables: tuple[Table, ...]
    answer: tuple[str, ...]
    mistaken: tuple[str, ...]
    """What one would answer who missed a part of the question."""

    @property
    def content(self) -> str:
        """The question and its rows."""
        return self.question.content


class SQL(TextEnv):
    """Answer a question about a database with SQL.

    The agent sees the question. A tool shows the schema and another one answers queries (SQLite). Then a reply without
    a call gives the answer between ``<answer>`` and ``</answer>``, one value per line, and ends the episode. There are
    at most ten replies. Names and whole numbers count exactly; lists may come in any order unless the question asks
    for one. A reply with two answers has none.

    Databases have three tables, of people, things and what happened between them, in the words of one of five trades.
    They only answer queries: every query is bounded in steps, rows and the length of texts, and cannot write, attach
    files, or use functions of time or chance.

    The reward is the sum of two parts:

    - ``form`` (0.1): the last reply has one answer.
    - ``right`` (0.9): it is the right one, all values of it.

    | difficulty | questions | rows |
    |---|---|---|
    | 0 | one table: counts, sums, a maximum, a filter | 220 |
    | 1 | a join, groups, a ranking | 370 |
    | 2 | two joins, what never happened | 550 |
    | 3 | first per group, second place, every year | 970 |

    Args:
        difficulty: 0 to 3.
        split: ``"train"`` or ``"eval"``; no question about the same rows belongs to both.
        options: What every `TextEnv` takes: `render_mode`, `scorer`.
    """

    max_turns = 10
    system_prompt = (
        "You answer a question about an SQLite database. Look at the schema and query it with your tools. Then reply "
        "without a call: give the answer between <answer> and </answer>, one value per line, with nothing else there."
    )

    def schema(self) -> str:
        """Show how the tables were created, and how many rows each has."""
        return "\n".join(f"{table.definition}; -- {len(table.rows)} rows" for table in self.episode.task.tables)

    def query(self, sql: str) -> dict[str, Any]:
        """Answer one SELECT statement; at most 50 rows are shown.

        Args:
            sql: The statement, in SQLite's dialect.
        """
        columns, rows, more = self._database.query(sql)
        return {"columns": columns, "rows": rows, **({"note": f"first {MAX_ROWS} rows of more"} if more else {})}

    tools: Sequence[Callable[..., Any] | Tool] = (schema, query)

    def __init__(self, difficulty: int = 1, split: Split = "train", **options: Any) -> None:
        super().__init__(**options)
        check_difficulty_and_split(difficulty, len(LEVELS), split)
        self.difficulty = difficulty
        self.split: Split = split
        self._database = Database(())

    def begin(self) -> str:
        """Draw a question and rows, and ask it."""
        task: Asked | None = None
        while task is None:
            task = self._asked(
                draw_in_split(lambda rng: draw_question(rng, self.difficulty), self.np_random, self.split)
            )
        self.episode.task = task
        return task.question.text

    def _asked(self, question: Question) -> Asked | None:
        """Fill the database; return None if the rows do not give the question a unique answer."""
        drawn = tables(np.random.default_rng(question.rows), question.theme, *LEVELS[self.difficulty])
        self._database.close()
        self._database = Database(drawn)
        answer, wrong = (question.template.values(self._rows(sql)) for sql in (question.sql, question.wrong))
        if answer is None or wrong is None or same(answer, wrong, ordered=False):
            return None
        return Asked(question, drawn, answer, wrong)

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        _, rows, _ = self._database.query(sql)
        return rows

    def score(self, episode: Episode) -> dict[str, float]:
        """Compare the answer with the right one."""
        task: Asked = episode.task
        given = tagged(episode.actions[-1], "answer")
        values = tuple(line.strip() for line in (given or "").splitlines() if line.strip())
        right = same(values, task.answer, ordered=task.question.template.ordered)
        return {"form": 0.1 * bool(values), "right": 0.9 * right}

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def expert(self) -> Iterator[ActionLike]:
        """Look at the schema, query, and answer."""
        yield from self._played(self.episode.task.question.sql, self.episode.task.answer)

    def mistake(self) -> Iterator[ActionLike]:
        """Query for something else than was asked, and answer with what that gives."""
        yield from self._played(self.episode.task.question.wrong, self.episode.task.mistaken)

    def _played(self, sql: str, answer: tuple[str, ...]) -> Iterator[ActionLike]:
        yield ToolCall("schema", {})
        yield ToolCall("query", {"sql": sql})
        yield "\n".join(["<answer>", *answer, "</answer>"])


def same(values: Sequence[str], answer: Sequence[str], *, ordered: bool) -> bool:
    """Tell whether values are those of an answer.

    Examples:
        >>> same(["b", "a"], ["a", "b"], ordered=False), same(["b", "a"], ["a", "b"], ordered=True)
        (True, False)
    """
    return list(values) == list(answer) if ordered else sorted(values) == sorted(answer)

"""Questions, each with the query that answers it and one that forgets something."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from llmgym.envs.sql.world import PLACES, THEMES, YEARS, Theme

FEWEST = 8  # of what is counted: a small number would be guessed too easily
LONGEST = 8  # list of names


@dataclass(frozen=True, slots=True)
class Template:
    """A question in words and in SQL; both are filled in with a theme's names and with values.

    Attributes:
        level: The difficulty that it belongs to.
        text: The question.
        sql: The query that answers it. Where a second column tells rows apart, such as what is ranked by, two rows that
            have it in common are a tie.
        wrong: A query that misses a part of the question.
        places: Which places of a ranking are asked for, of which the query shows one more; empty if it is none.
        ordered: Whether the values have to come in the order of the query.
    """

    level: int
    text: str
    sql: str
    wrong: str
    places: tuple[int, ...] = ()
    ordered: bool = False

    def values(self, rows: Sequence[tuple[Any, ...]]) -> tuple[str, ...] | None:
        """Return the answer that rows give; None if they give none that is unique, or one that is easily guessed."""
        tie = any(len(row) > 1 for row in rows) and len({row[1] for row in rows}) < len(rows)
        if tie or len(rows) < max(self.places, default=-1) + 2:
            return None
        if self.places:
            return tuple(str(rows[place][0]) for place in self.places)
        found = [row[0] for row in rows]
        counted = len(found) == 1 and isinstance(found[0], int)
        if found[0] is None or (found[0] < FEWEST if counted else not 2 <= len(found) <= LONGEST):
            return None
        return tuple(map(str, found))


_JOIN = "JOIN {people} p ON p.id = e.{person}_id"
_JOIN_THING = "JOIN {things} t ON t.id = e.{thing}_id"

TEMPLATES: Mapping[str, Template] = {
    "count_things": Template(
        0,
        "How many {things} have a {size} of more than {small}?",
        "SELECT count(*) FROM {things} WHERE {size} > {small}",
        "SELECT count(*) FROM {things} WHERE {size} < {small}",
    ),
    "count_people": Template(
        0,
        "How many {people} have the {place} '{at}' or a value of {since} before {before}?",
        "SELECT count(*) FROM {people} WHERE {place} = '{at}' OR {since} < {before}",
        "SELECT count(*) FROM {people} WHERE {place} = '{at}'",
    ),
    "sum_of_year": Template(
        0,
        "What is the sum of {amount} over all {events} of the years {year} and {next}?",
        "SELECT sum({amount}) FROM {events} WHERE year IN ({year}, {next})",
        "SELECT sum({amount}) FROM {events} WHERE year = {year}",
    ),
    "largest_thing": Template(
        0,
        "Which {thing} of the {kind} '{of}' has the highest {size}?",
        "SELECT name, {size} FROM {things} WHERE {kind} = '{of}' ORDER BY {size} DESC LIMIT 2",
        "SELECT name, {size} FROM {things} ORDER BY {size} DESC LIMIT 2",
        places=(0,),
    ),
    "names_of_place": Template(
        0,
        "Which {people} of the {place} '{at}' have a value of {since} before {before}?",
        "SELECT name FROM {people} WHERE {place} = '{at}' AND {since} < {before} ORDER BY name",
        "SELECT name FROM {people} WHERE {place} = '{at}' ORDER BY name",
    ),
    "sum_of_place": Template(
        1,
        "What is the sum of {amount} over the {events} of {people} of the {place} '{at}' since the year {year}?",
        f"SELECT sum(e.{{amount}}) FROM {{events}} e {_JOIN} WHERE p.{{place}} = '{{at}}' AND e.year >= {{year}}",
        f"SELECT sum(e.{{amount}}) FROM {{events}} e {_JOIN} WHERE p.{{place}} = '{{at}}'",
    ),
    "different_people": Template(
        1,
        "How many different {people} have {events} of {things} of the {kind} '{of}'?",
        f"SELECT count(DISTINCT e.{{person}}_id) FROM {{events}} e {_JOIN_THING} WHERE t.{{kind}} = '{{of}}'",
        f"SELECT count(*) FROM {{events}} e {_JOIN_THING} WHERE t.{{kind}} = '{{of}}'",
    ),
    "busiest_person": Template(
        1,
        "Which {person} has the highest sum of {amount} over the {events} of the year {year}?",
        f"SELECT p.name, sum(e.{{amount}}) AS total FROM {{events}} e {_JOIN} WHERE e.year = {{year}} "
        "GROUP BY p.id ORDER BY total DESC LIMIT 2",
        f"SELECT p.name, sum(e.{{amount}}) AS total FROM {{events}} e {_JOIN} "
        "GROUP BY p.id ORDER BY total DESC LIMIT 2",
        places=(0,),
    ),
    "three_things": Template(
        1,
        "Which three {things} have the highest sum of {amount} over all {events}, the highest first?",
        f"SELECT t.name, sum(e.{{amount}}) AS total FROM {{events}} e {_JOIN_THING} "
        "GROUP BY t.id ORDER BY total DESC LIMIT 4",
        f"SELECT t.name, sum(e.{{amount}}) AS total FROM {{events}} e {_JOIN_THING} "
        "GROUP BY t.id ORDER BY total LIMIT 4",
        places=(0, 1, 2),
        ordered=True,
    ),
    "product_of_place": Template(
        2,
        "What is the sum of {amount} times {size} over the {events} of {people} of the {place} '{at}' "
        "for {things} of the {kind} '{of}'?",
        f"SELECT sum(e.{{amount}} * t.{{size}}) FROM {{events}} e {_JOIN} {_JOIN_THING} "
        "WHERE p.{place} = '{at}' AND t.{kind} = '{of}'",
        f"SELECT sum(e.{{amount}}) FROM {{events}} e {_JOIN} {_JOIN_THING} "
        "WHERE p.{place} = '{at}' AND t.{kind} = '{of}'",
    ),
    "thing_of_place": Template(
        2,
        "Which {thing} has the highest sum of {amount} over the {events} of {people} of the {place} '{at}'?",
        f"SELECT t.name, sum(e.{{amount}}) AS total FROM {{events}} e {_JOIN} {_JOIN_THING} "
        "WHERE p.{place} = '{at}' GROUP BY t.id ORDER BY total DESC LIMIT 2",
        f"SELECT t.name, sum(e.{{amount}} * t.{{size}}) AS total FROM {{events}} e {_JOIN} {_JOIN_THING} "
        "WHERE p.{place} = '{at}' GROUP BY t.id ORDER BY total DESC LIMIT 2",
        places=(0,),
    ),
    "never": Template(
        2,
        "Which {people} of the {place} '{at}' have no {events} of {things} of the {kind} '{of}'?",
        "SELECT name FROM {people} WHERE {place} = '{at}' AND id NOT IN "
        f"(SELECT e.{{person}}_id FROM {{events}} e {_JOIN_THING} WHERE t.{{kind}} = '{{of}}') ORDER BY name",
        f"SELECT DISTINCT p.name FROM {{events}} e {_JOIN} {_JOIN_THING} "
        "WHERE p.{place} = '{at}' AND t.{kind} <> '{of}' ORDER BY p.name LIMIT 8",
    ),
    "both_years": Template(
        3,
        "What is the sum of {amount} over all {events} of the {people} who have {events} both in the year {year} and "
        "in the year {next}?",
        "SELECT sum({amount}) FROM {events} WHERE {person}_id IN (SELECT {person}_id FROM {events} "
        "WHERE year = {year}) AND {person}_id IN (SELECT {person}_id FROM {events} WHERE year = {next})",
        "SELECT sum({amount}) FROM {events} WHERE {person}_id IN (SELECT {person}_id FROM {events} "
        "WHERE year IN ({year}, {next}))",
    ),
    "second_person": Template(
        3,
        "Which {person} has the second highest sum of {amount} times {size} over the {events} since the year {year}?",
        f"SELECT p.name, sum(e.{{amount}} * t.{{size}}) AS total FROM {{events}} e {_JOIN} {_JOIN_THING} "
        "WHERE e.year >= {year} GROUP BY p.id ORDER BY total DESC LIMIT 3",
        f"SELECT p.name, sum(e.{{amount}}) AS total FROM {{events}} e {_JOIN} "
        "WHERE e.year >= {year} GROUP BY p.id ORDER BY total DESC LIMIT 3",
        places=(1,),
    ),
    "first_per_kind": Template(
        3,
        "Which {thing} has the highest sum of {amount} over the {events} since the year {year} in each {kind}? "
        "Give one name per {kind}, in the alphabetical order of the {kind}.",
        "WITH totals AS (SELECT t.name, t.{kind} AS kind, sum(e.{amount}) AS total "
        f"FROM {{events}} e {_JOIN_THING} WHERE e.year >= {{year}} GROUP BY t.id) "
        "SELECT name, kind FROM totals o WHERE total = (SELECT max(total) FROM totals i WHERE i.kind = o.kind) "
        "ORDER BY kind",
        "WITH totals AS (SELECT t.name, t.{kind} AS kind, count(*) AS total "
        f"FROM {{events}} e {_JOIN_THING} WHERE e.year >= {{year}} GROUP BY t.id) "
        "SELECT name, kind FROM totals o WHERE total = (SELECT max(total) FROM totals i WHERE i.kind = o.kind) "
        "ORDER BY kind",
        ordered=True,
    ),
    "every_year": Template(
        3,
        "Which {people} have a sum of {amount} of at least {little} in every year from {year} on?",
        f"WITH years AS (SELECT p.name, e.year FROM {{events}} e {_JOIN} WHERE e.year >= {{year}} "
        "GROUP BY p.id, e.year HAVING sum(e.{amount}) >= {little}) "
        f"SELECT name FROM years GROUP BY name HAVING count(*) = {YEARS[-1]} - {{year}} + 1 ORDER BY name",
        f"SELECT p.name FROM {{events}} e {_JOIN} WHERE e.year >= {{year}} "
        "GROUP BY p.id HAVING sum(e.{amount}) >= {little} ORDER BY name LIMIT 8",
    ),
}
"""Every question, by name."""


@dataclass(frozen=True, slots=True)
class Question:
    """A template with its theme and values, and which rows it is asked about.

    Attributes:
        name: Of the template.
        theme: The names of tables and columns.
        values: What it is asked about.
        rows: The seed of the rows.
    """

    name: str
    theme: Theme
    values: tuple[tuple[str, str | int], ...]
    rows: int

    @property
    def template(self) -> Template:
        """What it was made from."""
        return TEMPLATES[self.name]

    @property
    def text(self) -> str:
        """The question in words."""
        return self._filled(self.template.text)

    @property
    def content(self) -> str:
        """The question and its rows."""
        return f"{self.text} {self.rows}"

    @property
    def sql(self) -> str:
        """The query that answers it."""
        return self._filled(self.template.sql)

    @property
    def wrong(self) -> str:
        """A query that misses something."""
        return self._filled(self.template.wrong)

    def _filled(self, text: str) -> str:
        return text.format(**asdict(self.theme), **dict(self.values))


def draw_question(rng: np.random.Generator, level: int) -> Question:
    """Draw a question of a difficulty."""
    names = [name for name, template in TEMPLATES.items() if template.level == level]
    theme = THEMES[rng.integers(len(THEMES))]
    year = int(rng.choice(YEARS[:-1]))
    values: dict[str, str | int] = {
        "at": PLACES[rng.integers(len(PLACES))],
        "of": theme.kinds[rng.integers(len(theme.kinds))],
        "year": year,
        "next": year + 1,
        "before": int(rng.integers(1993, 2015)),
        "little": int(rng.integers(5, 30)),
        "small": int(rng.integers(10, 300)),
    }
    return Question(names[rng.integers(len(names))], theme, tuple(values.items()), int(rng.integers(2**31)))

"""SQL: the answer is what the rows say, and no query does harm."""

import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import gymnasium
import pytest
from playing import LAZY, contents, make, played, told

import llmgym
from llmgym import ToolCall, calling
from llmgym.envs.sql.database import MAX_ROWS
from llmgym.envs.sql.questions import TEMPLATES
from llmgym.errors import ConfigError

Rows = list[dict[str, Any]]


def joined(task: Any) -> tuple[Rows, Rows, Rows]:
    """Return people, things and events under names that all themes have."""
    people, things, events = task.tables
    who = {row[0]: dict(zip(("id", "name", "at", "since"), row, strict=True)) for row in people.rows}
    what = {row[0]: dict(zip(("id", "name", "of", "size"), row, strict=True)) for row in things.rows}
    happened = [
        {"who": who[person], "what": what[thing], "amount": amount, "year": year}
        for _, person, thing, amount, year in events.rows
    ]
    return list(who.values()), list(what.values()), happened


def ranked(pairs: Any) -> list[str]:
    """Return names by what they sum up to, the highest first."""
    totals: Counter[str] = Counter()
    for name, amount in pairs:
        totals[name] += amount
    return sorted(totals, key=lambda name: -totals[name])


def in_every_year(people: Rows, events: Rows, year: int, little: int) -> list[str]:
    found = []
    for person in people:
        mine = [(e["year"], e["amount"]) for e in events if e["who"] is person]
        if all(sum(amount for y, amount in mine if y == each) >= little for each in range(year, 2025)):
            found.append(person["name"])
    return found


# What each question asks for, worked out without SQL: people, things, events and values give names or numbers.
ORACLES: dict[str, Callable[[Rows, Rows, Rows, dict[str, Any]], list[Any]]] = {
    "count_things": lambda p, t, e, v: [sum(x["size"] > v["small"] for x in t)],
    "count_people": lambda p, t, e, v: [sum(x["at"] == v["at"] or x["since"] < v["before"] for x in p)],
    "sum_of_year": lambda p, t, e, v: [sum(x["amount"] for x in e if x["year"] in (v["year"], v["year"] + 1))],
    "largest_thing": lambda p, t, e, v: [
        max((x for x in t if x["of"] == v["of"]), key=lambda x: x["size"])["name"],
    ],
    "names_of_place": lambda p, t, e, v: [x["name"] for x in p if x["at"] == v["at"] and x["since"] < v["before"]],
    "sum_of_place": lambda p, t, e, v: [
        sum(x["amount"] for x in e if x["who"]["at"] == v["at"] and x["year"] >= v["year"])
    ],
    "different_people": lambda p, t, e, v: [len({x["who"]["id"] for x in e if x["what"]["of"] == v["of"]})],
    "busiest_person": lambda p, t, e, v: ranked(
        (x["who"]["name"], x["amount"]) for x in e if x["year"] == v["year"]
    )[:1],
    "three_things": lambda p, t, e, v: ranked((x["what"]["name"], x["amount"]) for x in e)[:3],
    "product_of_place": lambda p, t, e, v: [
        sum(x["amount"] * x["what"]["size"] for x in e if x["who"]["at"] == v["at"] and x["what"]["of"] == v["of"])
    ],
    "thing_of_place": lambda p, t, e, v: ranked(
        (x["what"]["name"], x["amount"]) for x in e if x["who"]["at"] == v["at"]
    )[:1],
    "never": lambda p, t, e, v: [
        x["name"]
        for x in p
        if x["at"] == v["at"] and not any(y["who"] is x and y["what"]["of"] == v["of"] for y in e)
    ],
    "both_years": lambda p, t, e, v: [
        sum(x["amount"] for x in e if {v["year"], v["year"] + 1} <= {y["year"] for y in e if y["who"] is x["who"]})
    ],
    "second_person": lambda p, t, e, v: ranked(
        (x["who"]["name"], x["amount"] * x["what"]["size"]) for x in e if x["year"] >= v["year"]
    )[1:2],
    "first_per_kind": lambda p, t, e, v: [
        ranked((x["what"]["name"], x["amount"]) for x in e if x["year"] >= v["year"] and x["what"]["of"] == kind)[0]
        for kind in sorted({x["of"] for x in t})
    ],
    "every_year": lambda p, t, e, v: in_every_year(p, e, v["year"], v["little"]),
}  # fmt: skip


@pytest.mark.parametrize("difficulty", range(4))
def test_the_answer_is_what_the_rows_say_without_sql(difficulty: int) -> None:
    env = make("SQL", difficulty=difficulty)
    seen = set()
    for seed in range(40):
        env.reset(seed=seed)
        task = env.episode.task
        seen.add(task.question.name)
        expected = [str(one) for one in ORACLES[task.question.name](*joined(task), dict(task.question.values))]
        order = list if task.question.template.ordered else sorted
        assert order(task.answer) == order(expected)
    assert seen == {name for name, template in TEMPLATES.items() if template.level == difficulty}


@pytest.mark.parametrize("split", ["train", "eval"])
@pytest.mark.parametrize("difficulty", range(4))
def test_the_expert_earns_it_all_and_a_mistake_almost_nothing(difficulty: int, split: str) -> None:
    env = make("SQL", difficulty=difficulty, split=split)
    for seed in range(15):
        total, info = told(env, seed, "expert")
        assert (total, info["success"], info["tools/failures"]) == (1.0, 1.0, 0.0)
        assert len(env.episode.turns) <= env.max_turns / 2
        assert told(env, seed, "mistake")[0] == pytest.approx(0.1)
        assert all(played(env, seed, policy)[0] == 0 for policy in LAZY.values())


def test_the_commonest_answer_is_rarely_right() -> None:
    for difficulty in range(4):
        env = make("SQL", difficulty=difficulty)
        answers: Counter[tuple[str, ...]] = Counter()
        for seed in range(60):
            env.reset(seed=seed)
            answers[env.episode.task.answer] += 1
        assert max(answers.values()) <= 4


@pytest.mark.parametrize(
    ("change", "earned"),
    [
        (lambda values: values, 1.0),
        (lambda values: [f"  {value} \n" for value in values], 1.0),
        (lambda values: values[::-1], 0.1),
        (lambda values: values[:-1], 0.1),
        (lambda values: [*values, "Ada Abel"], 0.1),
        (lambda values: [*values, values[0]], 0.1),
        (lambda values: [", ".join(values)], 0.1),
        (lambda values: [f'"{value}"' for value in values], 0.1),
        (lambda values: [], 0.0),
        (lambda values: [f"{value}</answer><answer>" for value in values], 0.0),
    ],
)
def test_values_count_exactly_and_in_order_where_it_is_asked_for(change: Any, earned: float) -> None:
    env = make("SQL", difficulty=1)
    seed = next(s for s in range(99) if env.reset(seed=s) and env.episode.task.question.name == "three_things")
    values = list(env.episode.task.answer)
    reply = "\n".join(["I count.", "<answer>", *change(values), "</answer>"])
    assert played(env, seed, lambda env, seen: reply)[0] == pytest.approx(earned)


def test_a_list_without_an_order_may_come_in_any() -> None:
    env = make("SQL", difficulty=0)
    seed = next(s for s in range(99) if env.reset(seed=s) and env.episode.task.question.name == "names_of_place")
    values = "\n".join(reversed(env.episode.task.answer))
    assert played(env, seed, lambda env, seen: f"<answer>{values}</answer>")[0] == 1.0


def asked(env: Any, sql: str) -> dict[str, Any]:
    env.step(calling(ToolCall("query", {"sql": sql})))
    (answer,) = env.heard
    found: dict[str, Any] = json.loads(answer.content)
    return found


@pytest.fixture
def env() -> Any:
    env = make("SQL", difficulty=2)
    env.max_turns = None
    env.reset(seed=3)
    return env


REFUSED = [
    "ATTACH DATABASE '/tmp/x.db' AS x",
    "PRAGMA table_info(orders)",
    "PRAGMA writable_schema = 1",
    "CREATE TABLE x (a)",
    "CREATE TEMP TABLE x (a)",
    "CREATE VIEW x AS SELECT 1",
    "DROP TABLE {0}",
    "DELETE FROM {0}",
    "UPDATE {0} SET name = 'x'",
    "INSERT INTO {0} VALUES (9999, 'x', 'y', 1)",
    "VACUUM INTO '/tmp/x.db'",
    "BEGIN",
    "SAVEPOINT x",
    "ANALYZE",
    "SELECT load_extension('x')",
    "SELECT random()",
    "SELECT hex(randomblob(4))",
    "SELECT datetime('now')",
    "SELECT current_timestamp",
    "SELECT changes()",
    "SELECT * FROM pragma_database_list",
    "SELECT readfile('/etc/passwd')",
    "SELECT 1; DROP TABLE {0}",
    "SELECT",
    "SELECT \x00",
    "SELECT * FROM nothing",
    "SELECT " + "(" * 3000 + "1" + ")" * 3000,
    "SELECT '" + "x" * 200_000 + "'",
    "SELECT printf('%.*c', 1000000000, 'x')",
    "SELECT zeroblob(1000000000)",
]


@pytest.mark.parametrize("sql", REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_query_is_refused_and_changes_nothing(env: Any, sql: str) -> None:
    table = env.episode.task.tables[0]
    assert "error" in asked(env, sql.format(table.name))
    assert asked(env, f"SELECT count(*) FROM {table.name}")["rows"] == [[len(table.rows)]]
    assert asked(env, "SELECT count(*) FROM sqlite_master")["rows"] == [[3]]


LONG = "replace(replace('aaaaaaaaa', 'a', 'aaaaaaaaaa'), 'a', 'aaaaaaaaaa')"
ENDLESS = [
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
    f"WITH RECURSIVE n(i, t) AS (SELECT 1, {LONG} UNION ALL SELECT i + 1, t || '' FROM n) SELECT * FROM n ORDER BY t",
    "SELECT count(*) FROM {0} a, {0} b, {0} c, {0} d",
    f"SELECT sum({LONG} LIKE '%a%a%a%a%a%a%a%a%a%b' || a.name || b.id || c.id || d.id) FROM {{0}} a, {{0}} b, {{0}} c, "
    "{0} d",
    f"SELECT sum(length(replace({LONG} || a.id, 'a', d.id))) FROM {{0}} a, {{0}} b, {{0}} c, {{0}} d",
]


@pytest.mark.parametrize("sql", ENDLESS, ids=range(len(ENDLESS)))
def test_a_query_ends_however_long_it_would_take(env: Any, sql: str) -> None:
    began = time.monotonic()
    assert "error" in asked(env, sql.format(env.episode.task.tables[0].name))
    assert time.monotonic() - began < 5


def test_an_answer_shows_a_bounded_number_of_rows(env: Any) -> None:
    table = env.episode.task.tables[2]
    found = asked(env, f"SELECT * FROM {table.name} ORDER BY id")
    assert found["rows"] == [list(row) for row in table.rows[:MAX_ROWS]]
    assert "more" in found["note"]


def test_whatever_a_query_may_use_works(env: Any) -> None:
    people, _, events = (table.name for table in env.episode.task.tables)
    for sql in (
        f"WITH some AS (SELECT * FROM {people}) SELECT count(*), upper(name) FROM (SELECT * FROM some) GROUP BY 2",
        f"SELECT rank() OVER (ORDER BY year), group_concat(year) FROM {events} GROUP BY year",
        f"SELECT name FROM {people} WHERE EXISTS (SELECT 1 FROM {events}) UNION SELECT CAST(1.5 AS TEXT)",
        "SELECT name, sql FROM sqlite_schema",
    ):
        assert asked(env, sql)["rows"], sql


def test_no_question_is_in_both_splits() -> None:
    for difficulty in range(4):
        seen = {split: contents("SQL", split, range(40), difficulty=difficulty) for split in ("train", "eval")}
        assert not seen["train"] & seen["eval"]
        assert min(map(len, seen.values())) == 40


def test_it_keeps_its_promises() -> None:
    llmgym.check_env(gymnasium.make("llmgym/SQL-v0", render_mode="ansi"), seeds=5)


@pytest.mark.parametrize("options", [{"difficulty": 4}, {"difficulty": True}, {"split": "test"}])
def test_an_unknown_difficulty_or_split_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))} has to be one of"):
        make("SQL", **options)

"""Scorers that compare a reply with the answer of its row."""

import math
from fractions import Fraction
from typing import Any

import hostile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmgym
from llmgym.errors import ConfigError, DataError
from llmgym.scorers import resolve_scorer
from llmgym.scorers.answers import Number, last_box, last_number
from llmgym.types import Episode, Turn


def score(name: str, reply: str, answer: Any) -> float | None:
    episode = Episode(turns=[Turn("What?", "wrong"), Turn("Sure?", reply)], task={"answer": answer})
    (found,) = resolve_scorer(name).score([episode])  # type: ignore[union-attr,misc]
    assert found.value is None or found.value in (0.0, 1.0)
    return found.value


@pytest.mark.parametrize(
    ("name", "reply", "answer", "right"),
    [
        ("exact", " Database.\n", "database", True),
        ("exact", "Paris .", "paris", True),
        ("boxed", r"\boxed{+5}", "5", True),
        ("boxed", r"\boxed{5}", "+5.0", True),
        ("exact", "the  database", "The database.", True),
        ("exact", "database!", "database", False),
        ("exact", "１２", "12", True),  # in the width of Chinese
        ("exact", "STRASSE", "straße", True),
        ("exact", "5", 5, True),
        ("exact", "b", ["a", "B"], True),
        ("exact", "c", ["a", "b"], False),
        ("exact", "", "a", False),
        ("contains", "It is the Database, surely.", "database", True),
        ("contains", "databases", "database", False),
        ("contains", "172", "72", False),
        ("contains", "72%", "72", True),
        ("contains", "a.c", "abc", False),
        ("contains", "abc", "a.c", False),  # it is no pattern
        ("contains", "答案是北京。", "北京", True),
        ("contains", "f(x) = (x+1)^2 holds", "(x+1)^2", True),
        ("number", "15 - 3 = 12, so 12.", "12", True),
        ("number", "$1,234.50", "1234.5", True),
        ("number", "Answer: 72", "48 / 2 = 24 and so on\n#### 72", True),
        ("number", "It is 3/4.", "0.75", True),
        ("number", "It is 3/4", 4, False),
        ("number", "It is -3", "3", False),
        ("number", "It is \u22123", "-3", True),
        ("number", "10-3", "3", True),
        ("number", "no number", "3", False),
        ("number", "0.1", 0.1, True),
        ("number", "1/0", "0", False),
        ("number", "1,00", "100", False),
        ("boxed", r"so \boxed{12}", "12", True),
        ("boxed", r"so \boxed{12.0}", r"The end: \boxed{12}", True),
        ("boxed", r"\boxed{\dfrac{1}{2}}", r"\frac{1}{2}", True),
        ("boxed", r"\boxed{\left( 1, 2 \right)}", "(1,2)", True),
        ("boxed", r"\boxed{1} no, \boxed{2}", "1", False),
        ("boxed", r"\boxed{12", "12", False),
        ("boxed", "12", "12", False),
    ],
)
def test_a_reply_is_right_or_wrong(name: str, reply: str, answer: Any, right: bool) -> None:
    assert score(name, reply, answer) == float(right)


@pytest.mark.parametrize("name", ["exact", "contains", "number", "boxed"])
@pytest.mark.parametrize("answer", [None, "", " ", [], math.nan])
def test_a_row_without_an_answer_has_no_score(name: str, answer: Any) -> None:
    assert score(name, "5", answer) is None


@pytest.mark.parametrize("task", [None, {"solution": "5"}, "5"])
def test_rows_that_have_no_place_for_an_answer_are_refused(task: Any) -> None:
    with pytest.raises(DataError, match=r"expects episode\.task\['answer'\], got .*answer_column"):
        resolve_scorer("exact").score([Episode(turns=[Turn("a", "b")], task=task)])  # type: ignore[union-attr]


@pytest.mark.parametrize("answer", [{"value": 5}, [b"5"], ["5", {5}]])
def test_an_answer_of_another_kind_costs_the_score_of_its_row(answer: Any) -> None:
    (found,) = resolve_scorer("exact").score([Episode(turns=[Turn("a", "5")], task={"answer": answer})])  # type: ignore[union-attr,misc]
    assert found.value is None
    assert "a text or a number, or a list of these, got " in str(found.error)


@pytest.mark.parametrize("text", ["9" * 100_000, "1/" * 50_000, r"\boxed{" * 30_000, "," * 50_000, "1," * 50_000])
def test_hostile_replies_take_no_time(text: str) -> None:
    for name in ("exact", "contains", "number", "boxed"):
        assert score(name, text, "12") == 0.0
    assert last_box(text) is None


def test_numbers_are_exact() -> None:
    assert last_number("0.1") == Fraction(1, 10)
    assert last_number("123456789012345678901") != last_number("123456789012345678902")


@given(st.fractions(), st.fractions(), st.sampled_from(["0", "0.01", "1e-6", "2", "1/3"]))
def test_a_tolerance_is_relative_beyond_1_and_absolute_within(found: Fraction, right: Fraction, tolerance: str) -> None:
    expected = abs(found - right) <= Fraction(tolerance) * max(1, abs(right))
    assert score(f"number:{tolerance}", f"so {found}", str(right)) == float(expected)


@pytest.mark.parametrize("name", ["number", "number:0.1"])
def test_an_answer_without_a_number_is_a_missing_score(name: str) -> None:
    assert score(name, "7", "seven") is None
    assert score(name, "7", ["seven", 7]) == 1.0
    assert score(name, "8", ["seven", 7]) == 0.0


def test_a_tolerance_is_read_as_a_number_is_written() -> None:
    for tolerance in ("0.01", ".01", "1e-2", "1/100", 0.01):
        assert Number(tolerance).score([Episode(turns=[Turn("?", "101")], task={"answer": 100})])[0].value == 1.0
        assert Number(tolerance).score([Episode(turns=[Turn("?", "102")], task={"answer": 100})])[0].value == 0.0
    assert score("number:0.5", "7", ["1", "7.2"]) == 1.0
    assert score("number:0.5", "none", "0") == 0.0
    assert score("number:0.5", "7", None) is None


@pytest.mark.parametrize(
    "tolerance", ["a", "-0.1", "nan", "inf", "0.1 0.2", "1e9999", math.nan, math.inf, -1.0, None, True]
)
def test_a_tolerance_is_a_number_of_at_least_0(tolerance: Any) -> None:
    with pytest.raises(ConfigError, match="expected a tolerance of at least 0 after 'number:'"):
        Number(tolerance)


@settings(max_examples=60)
@given(hostile.texts())
def test_any_reply_is_1_or_0(reply: str) -> None:
    for name in ("exact", "contains", "number", "number:0.1", "boxed"):
        assert score(name, reply, "12") in (0.0, 1.0)


def test_they_score_an_environment_by_name() -> None:
    env = llmgym.TaskEnv([{"prompt": "2 + 3?", "answer": "5"}], scorer="number")
    env.reset(seed=0)
    assert env.step("It is 5.")[1:] == (1.0, True, False, {"success": 1.0})

"""Conditions on episodes are read and never evaluated."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgym.errors import ConfigError
from llmgym.evals.where import Where

NAMES = ["score", "success", "ending", "turns"]
numbers = st.integers(-3, 3) | st.floats(-3, 3)
terms = st.one_of(
    st.tuples(st.sampled_from(["score", "turns"]), st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), numbers).map(
        lambda one: f"{one[0]} {one[1]} {one[2]!r}"
    ),
    st.just("success"),
    st.just("-1 < score <= turns"),
    st.just("ending == 'terminated'"),
)
conditions = st.recursive(
    terms,
    lambda inner: st.one_of(
        inner.map(lambda one: f"not ({one})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda one: f"({one[0]}) {one[1]} ({one[2]})"),
    ),
    max_leaves=6,
)


@given(conditions, numbers, numbers, st.booleans(), st.sampled_from(["terminated", "context"]))
def test_a_condition_means_what_it_means_in_python(
    text: str, score: float, turns: float, success: bool, ending: str
) -> None:
    facts: dict[str, Any] = {"score": score, "turns": turns, "success": success, "ending": ending}
    assert Where(text, NAMES)(facts) is bool(eval(text, {}, facts))


@pytest.mark.parametrize("text", ["score < 1", "score > 1", "score == 1", "score != 1", "success", "0 < score < 2"])
def test_what_is_missing_fulfils_no_comparison(text: str) -> None:
    assert not Where(text, NAMES)({"score": None, "success": None})


def test_parts_that_are_no_words_have_quotes() -> None:
    assert Where("parts['json ok'] == 1", ["json ok"])({"json ok": 1.0})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a condition such as"),
        ("score >", "invalid syntax"),
        ("score = 1", r"comparisons are <, <=, ==, !=, >= and >, joined by and, or, not"),
        ("score > 0 && success", r"comparisons are .* joined by and, or, not"),
        ("scores > 1", "'scores' is none of ending, score, success, turns"),
        ("__import__('os').system('true')", "is none"),
        ("score > (lambda: 1)()", "is no name, number or text"),
        ("[x for x in score]", "is none"),
        ("score in (1, 2)", "is none"),
        ("score.real > 1", "is no name, number or text"),
        ("score > 9**9**9", "is no name, number or text"),
        ("score > 1" * 200, "more than 1000 characters"),
        ("(" * 300 + "score" + ")" * 300, "expected a condition"),
        ("not " * 200 + "succes", "is none of"),
    ],
)
def test_anything_else_is_refused_with_a_sentence(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Where(text, NAMES)


def test_a_number_alone_is_no_condition() -> None:
    with pytest.raises(ConfigError, match="json_ok is a number; expected a comparison, such as json_ok == 1"):
        Where("not json_ok", ["json_ok"])({"json_ok": 1.0})


def test_a_number_is_not_compared_with_a_text() -> None:
    with pytest.raises(ConfigError, match="a number and a text cannot be compared"):
        Where("score < 'high'", NAMES)({"score": 1.0})
    with pytest.raises(ConfigError, match="a number and a text cannot be compared"):
        Where("success == 'yes'", NAMES)({"success": 1.0})  # which would never be true

"""Mathematical answers, compared by math-verify."""

import importlib
import logging
import threading
from typing import Any

import hostile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmgym.envs.waiting import settled
from llmgym.errors import ConfigError, DataError
from llmgym.scorers import ask, isolated, resolve_scorer
from llmgym.scorers.math_answers import _package
from llmgym.types import Episode, Score, Turn


def episode(reply: str, answer: Any) -> Episode:
    return Episode(turns=[Turn("?", "no"), Turn("?", reply)], task={"answer": answer})


def told(reply: str, answer: Any) -> Score:
    found: Score = settled(ask(resolve_scorer("math"), [episode(reply, answer)], [0]))[0]
    return found


@pytest.mark.parametrize(
    ("reply", "answer", "right"),
    [
        (r"so $\frac{1}{2}$.", "0.5", True),
        ("It is 0.5.", r"\frac{1}{2}", True),
        ("It is 1/2", "1/2", True),
        (r"\boxed{2\sqrt{3}}", r"\sqrt{12}", True),
        (r"\boxed{2\sqrt{3}}", "$\\sqrt{12}$", True),
        (r"\boxed{2}", r"2\sqrt{3}", False),
        (r"$x^2+2x+1$", "(x+1)^2", True),
        (r"$\{1, 2\}$", r"\{2, 1\}", True),
        (r"$(1, 2)$", "(2, 1)", False),
        ("1,000", 1000, True),
        ("0.1", 0.1, True),
        ("7", ["5", "7"], True),
        ("6", ["5", "7"], False),
        ("I do not know", "7", False),
        ("", "7", False),
        (r"\boxed{", "7", False),
    ],
)
def test_expressions_are_compared_by_what_they_equal(reply: str, answer: Any, right: bool) -> None:
    assert told(reply, answer).value == float(right)


@pytest.mark.parametrize("answer", [None, "", [], "\\", "{", "?!"])
def test_without_an_answer_that_can_be_read_there_is_no_score(answer: Any) -> None:
    found = told("5", answer)
    assert found.value is None
    assert "no answer to compare with" in str(found.error) or "finds no expression in the answer" in str(found.error)


def test_one_answer_that_can_be_read_will_do() -> None:
    assert told("5", ["?!", "5"]).value == 1.0
    assert told("6", ["?!", "5"]).value is None, "the other might have been right"
    with pytest.raises(DataError, match="answer_column"):
        ask(resolve_scorer("math"), [Episode(turns=[Turn("a", "b")], task={})], [0])


@settings(max_examples=50)
@given(hostile.texts())
def test_any_reply_is_1_or_0(reply: str) -> None:
    assert told(reply, "7").value in (0.0, 1.0)


@settings(max_examples=50)
@given(st.integers(-1000, 1000), st.integers(1, 50), st.integers(1, 9))
def test_fractions_are_equal_however_they_are_reduced(numerator: int, denominator: int, factor: int) -> None:
    reply = rf"\boxed{{\frac{{{numerator * factor}}}{{{denominator * factor}}}}}"
    assert told(reply, f"{numerator}/{denominator}").value == 1.0
    assert told(reply, f"{numerator + 1}/{denominator}").value == 0.0


def test_a_reply_that_takes_forever_costs_one_score_in_a_worker() -> None:
    scorer = isolated(resolve_scorer("math"), workers=1, timeout=8.0)
    replies = ["5", "$10^{10^{10^{10}}}$", r"\boxed{5}", "6"]
    scores = settled(ask(scorer, [episode(reply, "5") for reply in replies], [0] * 4))
    assert [score.value for score in scores if score is not scores[1]] == [1.0, 1.0, 0.0]
    assert scores[1].value in (None, 0.0)


def test_it_needs_no_main_thread_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    found: list[Score] = []
    _package.cache_clear()
    with caplog.at_level(logging.INFO):
        thread = threading.Thread(target=lambda: found.append(told("5", "5")))
        thread.start()
        thread.join()
    assert found[0].value == 1.0
    assert not caplog.records


def test_the_extra_is_named_where_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    resolve_scorer("math")
    _package.cache_clear()
    imported = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", lambda name: imported(name) if "llmgym" in name else fail(name))
    with pytest.raises(ConfigError, match=r"No module named 'math_verify'.*pip install 'llmgym-rl\[math\]'"):
        resolve_scorer("math")

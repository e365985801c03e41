"""Scorers made of scorers: what they come to, what they report, and what a missing part means."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmgym
from llmgym.agents import GRPO
from llmgym.envs.waiting import settled
from llmgym.errors import ConfigError, UnknownNameError
from llmgym.scorers import AnyScorer, Clipped, Gated, PairwiseFunctionScorer, Product, Weighted, ask, resolve_scorer
from llmgym.scorers.asking import asked_per, compares, is_waiting, judges_alone
from llmgym.scorers.expressions import read_sum
from llmgym.scorers.text import Regex
from llmgym.types import Episode, Score, Turn

numbers = st.floats(-100, 100)


class Fixed:
    """Gives every episode the same score."""

    def __init__(self, name: str, score: Score | float | None) -> None:
        self.name = name
        self._score = score if isinstance(score, Score) else Score(score, error=None if score is not None else "lost")

    def score(self, episodes: Sequence[Episode]) -> list[Score]:
        return [self._score for _ in episodes]


def episode(*replies: str, **fields: Any) -> Episode:
    return Episode(turns=[Turn("?", reply) for reply in replies or ("yes",)], **fields)


def one(scorer: AnyScorer, *episodes: Episode) -> Score:
    """Return the score of the first of some siblings."""
    found: list[Score] = settled(ask(scorer, episodes or [episode()], [0] * max(1, len(episodes))))
    return found[0]


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5))
def test_a_weighted_sum_is_the_sum_and_reports_each_scorer(terms: list[tuple[float, float]]) -> None:
    weights = {Fixed(f"f{i}", value): weight for i, (weight, value) in enumerate(terms)}
    found = one(Weighted(weights))
    assert found.value == pytest.approx(math.fsum(weight * value for weight, value in terms))
    assert found.parts == {f"f{i}": value for i, (_, value) in enumerate(terms)}


@given(st.lists(st.tuples(st.floats(0.1, 10), st.none() | numbers), min_size=1, max_size=5))
def test_what_is_missing_is_masked_or_skipped_as_is_asked(terms: list[tuple[float, float | None]]) -> None:
    weights = {Fixed(f"f{i}", value): weight for i, (weight, value) in enumerate(terms)}
    there = [(weight, value) for weight, value in terms if value is not None]
    masked, skipped = one(Weighted(weights)), one(Weighted(weights, missing="skip"))
    assert (masked.value is None) == (len(there) < len(terms))
    assert (skipped.value is None) == (not there)
    if there:
        share = math.fsum(weight for weight, _ in terms) / math.fsum(weight for weight, _ in there)
        assert skipped.value == pytest.approx(share * math.fsum(weight * value for weight, value in there))
    for i, (_, value) in enumerate(terms):
        for found in (masked, skipped):
            assert found.parts.get(f"f{i}") == value
            assert value is not None or found.value is not None or f"f{i}: lost" in str(found.error)


def test_a_scorer_of_weight_zero_is_reported_and_never_missed() -> None:
    right = Fixed("right", 1.0)
    assert one(Weighted({right: 1.0, Fixed("watched", 5.0): 0.0})) == Score(1.0, {"right": 1.0, "watched": 5.0})
    assert one(Weighted({right: 1.0, Fixed("watched", None): 0.0})) == Score(1.0, {"right": 1.0})


def test_rewards_of_turns_are_weighted_and_come_with_the_last_turn_where_there_are_none() -> None:
    turns = Fixed("turns", Score(0.75, rewards=[0.25, 0.5]))
    found = one(Weighted({turns: 2.0, Fixed("end", 3.0): 1.0}), episode("a", "b"))
    assert found.rewards == [0.5, 4.0]
    assert found.value == 4.5
    assert one(Gated(by=Fixed("open", 1.0), then=turns), episode("a", "b")).rewards == [0.25, 0.5]
    assert one(Clipped(turns, 0.0, 0.5), episode("a", "b")).rewards is None


def test_parts_of_parts_are_reported_under_both_names() -> None:
    inner = Fixed("inner", Score(0.5, {"form": 1.0}))
    assert one(Weighted({inner: 1.0})).parts == {"inner": 0.5, "inner.form": 1.0}


def test_a_gate_lets_through_what_follows_from_its_bound_on() -> None:
    behind = Fixed("behind", 0.7)
    assert [one(Gated(Fixed("gate", value), behind)).value for value in (0.0, 0.99, 1.0, 2.0)] == [0.0, 0.0, 0.7, 0.7]
    assert one(Gated(Fixed("gate", 0.4), behind, at_least=0.3)).value == 0.7
    assert one(Gated(Fixed("gate", 0.0), behind, otherwise=-1.0)).value == -1.0
    assert one(Gated(Fixed("gate", 0.0), Fixed("behind", None))).value == 0.0
    assert one(Gated(Fixed("gate", 1.0), Fixed("behind", None))).error == "behind: lost"
    assert one(Gated(Fixed("gate", None), behind)).error == "gate: lost"


def test_a_product_and_a_clip() -> None:
    assert one(Product([Fixed("a", 0.5), Fixed("b", -4.0)])).value == -2.0
    assert one(Product([Fixed("a", 0.5), Fixed("b", None)])).error == "b: lost"
    assert [one(Clipped(Fixed("a", value), -1.0, 1.0)).value for value in (-3.0, 0.5, 3.0)] == [-1.0, 0.5, 1.0]
    assert one(Clipped(Fixed("a", None), -1.0, 1.0)).error == "a: lost"


def test_they_nest() -> None:
    form, right, brief = Fixed("form", 1.0), Fixed("right", 1.0), Fixed("brief", 0.0)
    found = one(Gated(by=form, then=Weighted({right: 0.7, brief: 0.3})))
    assert found.value == 0.7
    assert found.parts == {"form": 1.0, "Weighted": 0.7, "Weighted.right": 1.0, "Weighted.brief": 0.0}


def test_a_comparison_counts_by_its_win_rate_and_needs_siblings() -> None:
    longer = PairwiseFunctionScorer(lambda first, second: float(len(first.actions[-1]) > len(second.actions[-1])))
    scorer = Weighted({longer: 1.0, "exact": 2.0})
    assert compares(scorer)
    assert judges_alone(scorer) is None
    assert asked_per(scorer) == "group"
    task = {"answer": "long"}
    found = one(scorer, episode("long", task=task), episode("no", task=task), episode("longest", task=task))
    assert found.value == 0.5 + 2.0
    assert found.parts == {"<lambda>": 0.5, "exact": 1.0}
    assert found.kind == "reward"


def test_it_waits_where_one_of_its_scorers_does_and_is_asked_as_widely_as_the_widest() -> None:
    async def judge(episode: Episode) -> float:
        return 0.25

    assert is_waiting(Weighted({judge: 1.0, "exact": 1.0}))
    assert not is_waiting(Weighted({"number": 1.0, "exact": 1.0}))
    assert asked_per(Weighted({judge: 1.0})) == "episode"
    assert asked_per(Weighted({judge: 1.0, Fixed("all", 0.0): 1.0})) == "rollout"
    assert one(Weighted({judge: 2.0})) == Score(0.5, {"judge": 0.25})


def test_a_scorer_that_raises_costs_its_part_alone() -> None:
    def broken(episode: Episode) -> float:
        raise ZeroDivisionError("by nothing")

    scorer = Weighted({broken: 0.5, Fixed("right", 1.0): 0.5}, missing="skip")
    assert one(scorer) == Score(1.0, {"right": 1.0})
    assert "broken raised ZeroDivisionError: by nothing" in str(one(Weighted({broken: 1.0})).error)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("0.7*exact + 0.3*brief", {"exact": 0.7, "brief": 0.3}),
        (".7 * exact+.3* brief", {"exact": 0.7, "brief": 0.3}),
        ("exact + brief - 1e-3*length", {"exact": 1.0, "brief": 1.0, "length": -0.001}),
        ("2*a.py:f + 0*reward_model:runs/x-1+2/checkpoint", {"a.py:f": 2.0, "reward_model:runs/x-1+2/checkpoint": 0.0}),
        ("-1*exact", {"exact": -1.0}),
        ("exact", None),
        ("a-b+c.py:f", None),
        ("runs/2*3", None),
    ],
)
def test_a_sum_is_read_from_text(text: str, weights: dict[str, float] | None) -> None:
    assert read_sum(text) == weights


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.7*exact + ", "expected terms such as 0.7"),
        ("0.7*exact + two words", "expected terms such as 0.7"),
        ("0.7*exact + 0.3*exact", "'exact' is there twice"),
        ("0.7*exact + 0.3*__import__('os').getpid()", "No scorer is registered|expected"),
        ("0.7*exact + 0.3*exakt", "Did you mean 'exact'"),
    ],
)
def test_a_sum_that_cannot_be_read_says_what_was_expected(text: str, message: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=message):
        resolve_scorer(text)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("0.5*'regex:a b' + exact", {"regex:a b": 0.5, "exact": 1.0}),
        ("exact - 2 * 'regex:a + 0.5*b'", {"exact": 1.0, "regex:a + 0.5*b": -2.0}),
        ("""0.5*"regex:it's" + 0.5*'regex:say "a"'""", {"regex:it's": 0.5, 'regex:say "a"': 0.5}),
        ("1*'regex:it''s ''a'''", {"regex:it's 'a'": 1.0}),
        ("'exact'+0.5*'number'", {"exact": 1.0, "number": 0.5}),
        ("0.5*regex:it's + 0.5*regex:a-'b'", {"regex:it's": 0.5, "regex:a-'b'": 0.5}),
        ("'regex:a + b'", None),
    ],
)
def test_a_name_in_quotes_may_have_spaces_and_signs(text: str, weights: dict[str, float] | None) -> None:
    assert read_sum(text) == weights


def test_a_quoted_name_alone_is_that_name() -> None:
    scorer = resolve_scorer("'regex:^it''s a + b$'")
    assert isinstance(scorer, Regex)
    assert scorer.pattern.pattern == "^it's a + b$"
    weighted = resolve_scorer(r"2*'regex:a \+ b' + length:3")
    assert isinstance(weighted, Weighted)
    assert one(weighted, episode("a + b")).parts == {r"regex:a \+ b": 1.0, "length:3": pytest.approx(1 / 3)}


@pytest.mark.parametrize(
    "text", ["0.5*'regex:a b", "0.5*'a'b' + exact", "exact + 'a b", "0.5*'' + exact", "0.5*'a' 'b'"]
)
def test_quotes_that_are_not_closed_are_refused(text: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError)):
        resolve_scorer(text)


@given(st.text("ab'\" +-*0.5:", max_size=25))
def test_any_expression_is_read_or_refused(text: str) -> None:
    try:
        weights = read_sum(text)
    except ConfigError:
        return
    assert weights is None or all(math.isfinite(weight) for weight in weights.values())


@given(st.text("ab'\" +-*0.5:", min_size=1))
def test_any_name_can_be_quoted(name: str) -> None:
    quoted = "'" + name.replace("'", "''") + "'"
    assert read_sum(f"0.5*{quoted} + exact") == {name: 0.5, "exact": 1.0}


def test_names_that_are_there_twice_and_bad_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="two parts are called 'right'"):
        Weighted({Fixed("right", 1.0): 1.0, Fixed("right", 0.0): 1.0})
    with pytest.raises(ConfigError, match="the weight of 'exact' has to be a number, got nan"):
        Weighted({"exact": math.nan})
    with pytest.raises(ConfigError, match="at least one scorer"):
        Product([])
    with pytest.raises(ConfigError, match="missing: expected one of"):
        Weighted({"exact": 1.0}, missing="zero")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="low <= high"):
        Clipped("exact", 1.0, 0.0)


def test_the_environments_own_score_and_its_parts_are_scorers() -> None:
    scored = episode(scored=Score(0.6, {"json_ok": 1.0, "evidence": 0.5}))
    found = one(resolve_scorer("0.5*env + env:evidence"), scored)
    assert found == Score(0.8, {"env": 0.6, "env:evidence": 0.5})
    assert one(resolve_scorer("env:json_ok"), scored).value == 1.0
    assert one(resolve_scorer("env")).error == "the environment has not scored it"
    assert "no part 'json_okay'. Did you mean 'json_ok'" in str(one(resolve_scorer("env:json_okay"), scored).error)


def test_a_run_is_scored_by_a_composition_and_reports_each_part(tmp_path: Path) -> None:
    agent = GRPO(
        env="AIOpsTriage",
        scorer="0.9*env + 0.1*env:evidence",
        prompts_per_step=2,
        group_size=2,
        max_tokens=48,
        eval_episodes=0,
        output_dir=tmp_path,
    )
    (metrics,) = agent.train(steps=1).metrics
    assert metrics["part/env:evidence"] == metrics["part/evidence"]
    assert metrics["reward"] == pytest.approx(0.9 * metrics["part/env"] + 0.1 * metrics["part/evidence"])


def test_what_the_page_on_scorers_shows_of_compositions_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "scorers.md").read_text(encoding="utf-8")
    (block,) = [
        block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "Gated(" in block and "GRPO(" in block
    ]
    names: dict[str, Any] = {"llmgym": llmgym, "GRPO": GRPO}
    exec(block[: block.index("GRPO(")], names)
    scored = episode("short", scored=Score(0.6, {"json_ok": 1.0, "acc_main": 1.0, "evidence": 0.5}))
    assert one(names["reward"], scored).value == pytest.approx(0.8 + 0.2 * (1 - 5 / 1000))
    scored.scored = Score(0.6, {"json_ok": 0.0, "acc_main": 1.0, "evidence": 0.5})
    assert one(names["reward"], scored).value == 0.0

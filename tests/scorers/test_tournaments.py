"""Scorers that compare each episode with some of its siblings."""

import statistics
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgym import Episode, Score
from llmgym.envs.waiting import settled
from llmgym.scorers import PairwiseFunctionScorer, ask
from llmgym.scorers.pairwise import _pairs
from llmgym.types import Turn


def better(first: Episode, second: Episode) -> float:
    """Say how likely the first is better: as Bradley and Terry do, by the numbers that they are."""
    one, other = float(first.actions[0]), float(second.actions[0])
    return one / (one + other)


def scores_of(strengths: list[int], opponents: int | None) -> list[Score]:
    scorer = PairwiseFunctionScorer(better)
    scorer.opponents = opponents
    episodes = [Episode(turns=[Turn("?", str(strength))]) for strength in strengths]
    scores: list[Score] = settled(ask(scorer, episodes, [3] * len(episodes)))
    return scores


@given(st.integers(2, 40), st.integers(1, 8).map(lambda half: 2 * half), st.integers(0, 10**6))
def test_each_meets_as_many_siblings_as_was_asked_for_each_once_in_both_orders(
    size: int, opponents: int, seed: int
) -> None:
    pairs = list(_pairs(range(size), opponents, seed))
    assert len(set(pairs)) == len(pairs)
    assert {(second, first) for first, second in pairs} == set(pairs)
    assert all(first != second for first, second in pairs)
    assert set(Counter(first for first, _ in pairs).values()) == {min(opponents, size - 1)}


def test_the_number_of_calls_grows_with_the_group_and_not_with_its_square() -> None:
    assert len(list(_pairs(range(64), None, 0))) == 64 * 63
    assert len(list(_pairs(range(64), 4, 0))) == 64 * 4


def test_who_meets_all_has_no_error() -> None:
    for some, every in zip(scores_of([1, 2, 3, 4], 4), scores_of([1, 2, 3, 4], None), strict=True):
        assert some.value == every.value
        assert (some.parts, every.parts) == ({"standard_error": 0.0}, {})


def test_the_standard_error_is_that_of_a_sample_without_replacement() -> None:
    """The mean squared error over all tournaments is, on average, the squared standard error that is reported."""
    strengths = list(range(1, 10))
    true = [score.value or 0.0 for score in scores_of(strengths, None)]
    squared, reported = [], []
    for seed in range(400):
        wins: dict[int, list[float]] = {}
        for first, second in _pairs(range(9), 4, seed):
            wins.setdefault(first, []).append(strengths[first] / (strengths[first] + strengths[second]))
        for index, rates in wins.items():
            squared.append((statistics.mean(rates) - true[index]) ** 2)
            reported.append(statistics.variance(rates) / 4 * (1 - 4 / 8))
    assert statistics.mean(squared) == pytest.approx(statistics.mean(reported), rel=0.1)
    (score, *_) = scores_of(strengths, 4)
    met = [second for first, second in _pairs(range(9), 4, 3) if first == 0]
    rates = [1 / (1 + strengths[second]) for second in met]
    assert score.value == pytest.approx(statistics.mean(rates))
    assert score.parts["standard_error"] == pytest.approx((statistics.variance(rates) / 4 * 0.5) ** 0.5)


def test_what_it_cannot_tell_of_a_pair_leaves_the_others() -> None:
    def partial(first: Episode, second: Episode) -> float | None:
        return None if "1" in (first.actions[0], second.actions[0]) else better(first, second)

    partial.opponents = 2  # type: ignore[attr-defined]
    episodes = [Episode(turns=[Turn("?", str(strength))]) for strength in (1, 2, 3, 4, 5)]
    scores: list[Score] = settled(ask(PairwiseFunctionScorer(partial), episodes, [0] * 5))
    assert scores[0].value is None
    assert all(score.value is not None and score.parts["standard_error"] > 0 for score in scores[1:])


@pytest.mark.parametrize("opponents", [0, 3, -2, True, 2.0, "2"])
def test_a_number_of_opponents_that_is_none_is_a_missing_score_with_the_reason(opponents: object) -> None:
    scores = scores_of([1, 2, 3], opponents)  # type: ignore[arg-type]
    assert {score.value for score in scores} == {None}
    assert "opponents has to be an even number from 2 on" in str(scores[0].error)


def test_groups_do_not_meet() -> None:
    seen: list[tuple[str, str]] = []

    def compare(first: Episode, second: Episode) -> float:
        seen.append((first.actions[0], second.actions[0]))
        return 0.5

    compare.opponents = 2  # type: ignore[attr-defined]
    episodes = [Episode(turns=[Turn("?", f"{group} {number}")]) for group in "ab" for number in range(6)]
    settled(ask(PairwiseFunctionScorer(compare), episodes, [0] * 6 + [1] * 6))
    assert len(seen) == 24
    assert all(first[0] == second[0] for first, second in seen)

"""Win rates within a group: an independent count, and what must not change them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmgym.learn.win_rates import is_clear, win_rates

SCORES = st.lists(st.sampled_from([None, 0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=7)


def rates_of(*groups: list[float | None]) -> list[float]:
    scores = [score for group in groups for score in group]
    members = [g for g, group in enumerate(groups) for _ in group]
    scored = torch.tensor([score is not None for score in scores])
    return win_rates(torch.tensor([score or 0.0 for score in scores]), torch.tensor(members), scored).tolist()


def by_hand(group: list[float | None]) -> list[float]:
    """Play every response against every other."""
    rates = []
    for i, mine in enumerate(group):
        others = [other for j, other in enumerate(group) if j != i and other is not None]
        if mine is None or not others:
            rates.append(math.nan)
        else:
            wins = [1.0 if mine > other else 0.5 if mine == other else 0.0 for other in others]
            rates.append(sum(wins) / len(wins))
    return rates


def test_known_values() -> None:
    assert rates_of([1.0, 0.5, 0.0]) == [1.0, 0.5, 0.0]
    assert rates_of([1.0, 1.0, 0.0]) == [0.75, 0.75, 0.0]
    assert rates_of([0.5, 0.5]) == [0.5, 0.5]


@given(groups=st.lists(SCORES, min_size=1, max_size=3))
def test_they_are_a_count_of_strict_wins_and_half_ties_against_scored_siblings(
    groups: list[list[float | None]],
) -> None:
    expected = [rate for group in groups for rate in by_hand(group)]
    assert rates_of(*groups) == pytest.approx(expected, nan_ok=True)


@given(scores=SCORES.filter(lambda scores: len(scores) - scores.count(None) > 1))
def test_a_group_wins_half_of_its_games(scores: list[float | None]) -> None:
    rates = [rate for rate in rates_of(scores) if not math.isnan(rate)]
    assert sum(rates) / len(rates) == pytest.approx(0.5)


@given(scores=SCORES, data=st.data())
def test_permuting_a_group_permutes_them(scores: list[float | None], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(scores))))
    expected = rates_of(scores)
    assert rates_of([scores[i] for i in order]) == pytest.approx([expected[i] for i in order], nan_ok=True)


def test_only_the_order_of_the_scores_counts() -> None:
    assert rates_of([3.0, -1.0, 7.0, 7.0]) == rates_of([0.3, 0.0, 0.4, 0.4])


def test_missing_scores_and_single_responses_have_none() -> None:
    assert rates_of([None, 0.0, 1.0], [1.0, None], [None]) == pytest.approx(
        [math.nan, 0.0, 1.0, math.nan, math.nan, math.nan], nan_ok=True
    )


def test_a_threshold_takes_what_wins_or_loses_that_often() -> None:
    rate = torch.tensor([0.0, 0.25, 1 / 3, 0.5, 2 / 3, 0.75, 1.0, math.nan])
    assert is_clear(rate, 0.5).tolist() == [True] * 7 + [False]
    assert is_clear(rate, 2 / 3).tolist() == [True, True, True, False, True, True, True, False]
    assert is_clear(rate, 0.7).tolist() == [True, True, False, False, False, True, True, False]
    assert is_clear(rate, 1.0).tolist() == [True, False, False, False, False, False, True, False]


def test_win_rates_of_a_reward_model_are_those_of_bradley_and_terry() -> None:
    score, group = torch.tensor([2.0, 0.5, 0.4, 9.0]), torch.tensor([0, 0, 0, 1])
    rates = win_rates(score, group, torch.tensor([True] * 4), "logistic")
    sigma = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731  # one line
    assert rates[:3].tolist() == pytest.approx(
        [(sigma(1.5) + sigma(1.6)) / 2, (sigma(-1.5) + sigma(0.1)) / 2, (sigma(-1.6) + sigma(-0.1)) / 2]
    )
    assert rates[:3].mean() == pytest.approx(0.5)
    assert rates[3].isnan()


def test_scores_that_are_nearly_equal_win_half_of_the_time_or_always() -> None:
    score, group, scored = torch.tensor([1.0, 1.001]), torch.zeros(2), torch.tensor([True, True])
    assert win_rates(score, group, scored).tolist() == [0.0, 1.0]
    assert win_rates(score, group, scored, "logistic").tolist() == pytest.approx([0.5, 0.5], abs=1e-3)

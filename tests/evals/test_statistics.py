"""Intervals and estimates against enumerations and simulations."""

import collections
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgym.statistics import (
    maj_at_k,
    mean_of_tasks,
    pass_at_k,
    pass_hat_k,
    powers_of_two,
    share_of_tasks,
    wilson_interval,
)


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_pass_at_k_and_pass_hat_k_are_those_of_an_enumeration(tries: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(tries)))
    drawn = list(itertools.combinations(tries, k))
    assert pass_at_k(len(tries), sum(tries), k) == pytest.approx(sum(map(any, drawn)) / len(drawn))
    assert pass_hat_k(len(tries), sum(tries), k) == pytest.approx(sum(map(all, drawn)) / len(drawn))


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.booleans()), min_size=1, max_size=9), st.data())
def test_maj_at_k_is_that_of_an_enumeration(tries: list[tuple[str | None, bool]], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(tries)))
    won = []
    for drawn in itertools.combinations(tries, k):
        votes = collections.Counter(answer for answer, _ in drawn).most_common()
        answer, ahead = votes[0][0], len(votes) == 1 or votes[0][1] > votes[1][1]
        right = [ok for given, ok in tries if given == answer]
        won.append(sum(right) / len(right) if ahead and answer is not None else 0.0)
    answers, right = zip(*tries, strict=True)
    assert maj_at_k(answers, right, k) == pytest.approx(sum(won) / len(won))


@given(st.integers(1, 10**6))
def test_powers_of_two_end_before_the_next_one(largest: int) -> None:
    powers = powers_of_two(largest)
    assert powers == [2**i for i in range(len(powers))]
    assert powers[-1] <= largest < 2 * powers[-1]


@pytest.mark.parametrize(
    ("tasks", "samples", "a", "b"),
    [(50, 8, 2, 2), (100, 4, 0.5, 0.5), (200, 1, 2, 6), (40, 1, 3, 2), (30, 8, 8, 2), (100, 8, 9, 0.5)],
)
def test_95_of_100_intervals_of_correlated_samples_hold_the_truth(tasks: int, samples: int, a: float, b: float) -> None:
    """1,000 evaluations of tasks that are hard to different degrees, so that the samples of one go together."""
    random, truth, held, held_mean = np.random.default_rng(7), a / (a + b), 0, 0
    for _ in range(1000):
        hardness = random.beta(a, b, tasks)
        outcomes = random.random((tasks, samples)) < hardness[:, None]
        share, low, high = share_of_tasks(outcomes.tolist())
        assert low <= share <= high
        held += low <= truth <= high
        _, low, high = mean_of_tasks(outcomes.astype(float).tolist())
        held_mean += low <= truth <= high
    assert 930 <= held <= 970
    assert 910 <= held_mean <= 970  # Student's t knows nothing of the bounds that skew it here


def test_an_interval_that_takes_samples_for_independent_would_be_too_short() -> None:
    outcomes = [[True] * 8] * 30 + [[False] * 8] * 20
    _, low, high = share_of_tasks(outcomes)
    naive = wilson_interval(240, 400)
    assert high - low > 2.5 * (naive[1] - naive[0])


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_with_one_sample_per_task_the_interval_is_wilsons(outcomes: list[bool]) -> None:
    share, low, high = share_of_tasks([[one] for one in outcomes])
    assert share == pytest.approx(sum(outcomes) / len(outcomes))
    assert (low, high) == pytest.approx(wilson_interval(sum(outcomes), len(outcomes)))


def test_what_cannot_be_said_is_nan_and_what_never_failed_is_not_certain() -> None:
    assert all(map(math.isnan, share_of_tasks([])))
    assert all(map(math.isnan, mean_of_tasks([])))
    mean, low, _ = mean_of_tasks([[1.0, 2.0]])
    assert mean == 1.5
    assert math.isnan(low)
    share, low, high = share_of_tasks([[True] * 8] * 20)
    assert share == high == 1.0
    assert low < 0.9


@pytest.mark.parametrize(("tasks", "half"), [(2, 12.7062), (4, 3.18245), (6, 2.57058), (11, 2.22814), (31, 2.04227)])
def test_means_have_intervals_of_students_t(tasks: int, half: float) -> None:
    values = np.arange(tasks, dtype=float)
    mean, low, high = mean_of_tasks([[value] for value in values])
    error = values.std(ddof=1) / math.sqrt(tasks)
    assert mean == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(half * error, rel=1e-3)

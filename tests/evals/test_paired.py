"""What is said of differences between pairs, against enumerations and simulations."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmgym.paired import bootstrap_interval, difference_seen, sign_flip_test, tasks_needed

Array = NDArray[np.float64]


def differences(
    random: np.random.Generator, tasks: int, samples: int, hardness: tuple[float, float], planted: float
) -> Array:
    """Return paired differences of tasks that are hard to different degrees, so that samples of one go together.

    The second of the two does some tasks better and others worse, and is better by `planted` on average.
    """
    a, b = hardness
    room = a * b / ((a + b) * (a + b + 1))  # the mean of p (1 - p)
    p = random.beta(a, b, tasks)
    better = p + p * (1 - p) * (planted / room + random.choice([-0.5, 0.5], tasks))
    return (random.binomial(samples, better) - random.binomial(samples, p)) / samples


CASES = [(1, (2.0, 2.0)), (8, (2.0, 2.0)), (4, (0.5, 0.5))]


@pytest.mark.parametrize(("samples", "hardness"), CASES)
@pytest.mark.slow
def test_five_planted_points_are_found_as_often_as_wanted_with_the_tasks_it_names(
    samples: int, hardness: tuple[float, float]
) -> None:
    random = np.random.default_rng(samples)
    pilot = differences(random, 20_000, samples, hardness, 0.05)
    named = int(tasks_needed(pilot, 0.05, power=0.8))
    found = 0
    for _ in range(2000):
        test = sign_flip_test(differences(random, named, samples, hardness, 0.05), resamples=2000)
        found += test.p < 0.05 and test.won > test.lost
    assert 0.77 <= found / 2000 <= 0.83


@pytest.mark.parametrize(("samples", "hardness"), CASES)
@pytest.mark.slow
def test_no_difference_is_found_where_there_is_none(samples: int, hardness: tuple[float, float]) -> None:
    random = np.random.default_rng(samples)
    named = int(tasks_needed(differences(random, 20_000, samples, hardness, 0.05), 0.05, power=0.8))
    alarms = sum(
        sign_flip_test(differences(random, named, samples, hardness, 0.0), resamples=1000).p < 0.05 for _ in range(5000)
    )
    assert 0.04 <= alarms / 5000 <= 0.06


@pytest.mark.parametrize(
    ("tasks", "samples", "hardness"),
    [(20, 1, (2, 2)), (50, 1, (9, 0.6)), (100, 1, (2, 2)), (30, 8, (2, 2)), (100, 4, (0.6, 0.6)), (200, 8, (9, 0.6))],
)
def test_95_of_100_intervals_hold_the_difference_and_with_few_flips_more(
    tasks: int, samples: int, hardness: tuple[float, float]
) -> None:
    random, held = np.random.default_rng(7), 0
    for _ in range(1000):
        drawn = differences(random, tasks, samples, hardness, 0.02)
        low, high = bootstrap_interval(drawn, extra=1 / samples, resamples=1000)
        assert low <= drawn.mean() <= high
        held += low <= 0.02 <= high
    assert 930 <= held <= (970 if samples > 1 or tasks > 50 else 1000)


def test_samples_taken_for_tasks_would_find_far_too_much() -> None:
    """Were the eight samples of a task eight tasks, a third of comparisons of equals would be alarms."""
    random, naive, clustered = np.random.default_rng(3), 0, 0
    for _ in range(500):
        p = random.beta(0.5, 0.5, (2, 60))  # the two are good at different tasks, and equally good
        outcomes = random.random((2, 60, 8)) < p[:, :, None]
        apart = outcomes[1].astype(float) - outcomes[0]
        naive += sign_flip_test(apart.ravel()).p < 0.05
        clustered += sign_flip_test(apart.mean(axis=1), resamples=1000).p < 0.05
    assert naive > 120
    assert clustered < 40


SIGNED = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=10).filter(any)


@given(SIGNED)
def test_the_test_is_an_enumeration_of_all_signs(values: list[float]) -> None:
    seen, test = abs(sum(values)), sign_flip_test(np.array(values))
    sums = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True)))
        for signs in itertools.product([-1, 1], repeat=len(values))
    ]
    at_least, larger = (sum(one >= seen for one in sums) / len(sums), sum(one > seen for one in sums) / len(sums))
    near = 1e-12 if test.enumerated else 0.02
    assert test.p_exact == pytest.approx(at_least, abs=near)
    assert test.p == pytest.approx((at_least + larger) / 2, abs=near)
    assert (test.won, test.lost) == (sum(v > 0 for v in values), sum(v < 0 for v in values))


@given(st.integers(0, 300), st.integers(0, 300))
def test_with_one_sample_per_task_it_is_mcnemars(won: int, lost: int) -> None:
    test = sign_flip_test(np.array([1.0] * won + [-1.0] * lost + [0.0] * 7))
    assert test.enumerated
    far = [k for k in range(won + lost + 1) if abs(2 * k - won - lost) >= abs(won - lost)]
    expected = sum(math.comb(won + lost, k) for k in far) / 2 ** (won + lost)
    assert test.p_exact == pytest.approx(expected, rel=1e-9)
    assert test == sign_flip_test(np.array([1 / 3] * won + [-1 / 3] * lost))  # the unit is not the matter


@given(st.lists(st.integers(-9, 9), min_size=5, max_size=40), st.integers(-30, 30))
def test_the_unit_of_rewards_is_not_the_matter(values: list[int], power: int) -> None:
    """Powers of two, which change no digit."""
    apart, unit = np.array(values, dtype=float), 2.0**power
    assert sign_flip_test(apart * unit, resamples=200) == sign_flip_test(apart, resamples=200)
    ends = [np.array(bootstrap_interval(one, resamples=200)) for one in (apart * unit, apart)]
    np.testing.assert_allclose(ends[0], ends[1] * unit, rtol=1e-9, atol=1e-9 * unit)


def test_large_and_small_rewards_are_tested_by_all_signs() -> None:
    random = np.random.default_rng(0)
    for unit in (1e-9, 1e7):
        apart = np.abs(random.normal(size=6)) * unit  # by chance, all are of one sign once in 32 times
        assert sign_flip_test(apart).p_exact == pytest.approx(1 / 32, abs=0.01)


def test_of_very_many_tasks_mcnemars_test_comes_to_the_normal_one() -> None:
    tosses, apart = 200_000, 1000
    test = sign_flip_test(np.repeat([1.0, -1.0], [(tosses + apart) // 2, (tosses - apart) // 2]))
    assert test.enumerated
    assert test.p == pytest.approx(math.erfc(apart / math.sqrt(2 * tosses)), rel=0.01)


@given(SIGNED.filter(lambda one: len(set(one)) > 1), st.integers(0, 9))
def test_turned_round_it_says_the_same(values: list[float], seed: int) -> None:
    forth, back = sign_flip_test(np.array(values), seed=seed), sign_flip_test(-np.array(values), seed=seed)
    assert (forth.p, forth.won, forth.lost) == (back.p, back.lost, back.won)


def test_the_bootstrap_is_one_of_whole_tasks() -> None:
    values = np.random.default_rng(0).gamma(2, size=400)
    drawn = np.random.default_rng(1).choice(values, (20_000, 400)).mean(axis=1)
    found = bootstrap_interval(values, resamples=20_000)
    assert found == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.01)
    assert found == bootstrap_interval(np.random.default_rng(5).permutation(values), resamples=20_000)
    narrow, wide = (bootstrap_interval(values, confidence=one) for one in (0.8, 0.99))
    assert wide[0] < found[0] < narrow[0] < narrow[1] < found[1] < wide[1]


def test_where_nothing_flipped_it_is_not_sure_that_nothing_ever_does() -> None:
    low, high = bootstrap_interval(np.zeros(50), extra=1.0)
    assert -0.15 < low < -0.03
    assert 0.03 < high < 0.15
    assert all(map(math.isnan, bootstrap_interval(np.zeros(50))))
    assert sign_flip_test(np.zeros(50)).p == 1.0
    assert all(map(math.isnan, bootstrap_interval(np.array([1.0, 0.0, 1.0, 1.0]), extra=1.0)))


@given(
    st.lists(st.floats(-1, 1), min_size=5, max_size=50).filter(lambda one: float(np.std(one)) > 0.01),
    st.floats(0.5, 0.95),
    st.sampled_from([0.9, 0.95, 0.99]),
)
def test_the_smallest_difference_seen_is_the_one_that_needs_these_tasks(
    values: list[float], power: float, confidence: float
) -> None:
    those = np.array(values)
    smallest = difference_seen(those, power=power, confidence=confidence)
    assert tasks_needed(those, smallest, power=power, confidence=confidence) in (len(values), len(values) + 1)
    assert tasks_needed(those, smallest / 2, power=power) > tasks_needed(those, smallest, power=power)
    assert tasks_needed(those, 0.0) == math.inf

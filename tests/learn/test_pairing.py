"""Pairs from scored groups: what makes one, and what must not change them."""

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmgym.config.choices import PairStrategy
from llmgym.engines.base import Completion
from llmgym.learn.batch import collate
from llmgym.learn.pairing import collate_pairs, pair_by_score
from llmgym.rollout.trajectory import Trajectory

STRATEGIES: tuple[PairStrategy, ...] = ("best_worst", "adjacent")
SCORES = st.lists(st.sampled_from([None, 0.0, 0.1, 0.5, 1.0]), min_size=1, max_size=8)


def trajectories(*groups: list[float | None]) -> list[Trajectory]:
    return [Trajectory(seed=g, group=g, score=score) for g, group in enumerate(groups) for score in group]


def scores_of_pairs(tried: list[Trajectory], strategy: PairStrategy) -> Counter[tuple[object, ...]]:
    pairs = pair_by_score(tried, strategy)
    return Counter((tried[chosen].group, tried[chosen].score, tried[rejected].score) for chosen, rejected in pairs)


def test_best_worst_takes_the_ends_of_each_group() -> None:
    tried = trajectories([0.2, 1.0, 0.5, 0.0], [0.3, 0.1])
    assert pair_by_score(tried, "best_worst") == [(1, 3), (4, 5)]


def test_adjacent_takes_neighbours_in_rank() -> None:
    tried = trajectories([0.2, 1.0, 0.5, 0.0], [0.3, 0.1])
    assert pair_by_score(tried, "adjacent") == [(1, 2), (2, 0), (0, 3), (4, 5)]


def test_ties_make_no_pair() -> None:
    tried = trajectories([1.0, 0.5, 0.5, 0.0])
    assert pair_by_score(tried, "adjacent") == [(0, 1), (2, 3)]
    assert pair_by_score(trajectories([0.5, 0.5, 0.5]), "best_worst") == []
    assert pair_by_score(trajectories([0.5, 0.5, 0.5]), "adjacent") == []


def test_sums_that_differ_by_rounding_are_a_tie() -> None:
    assert 0.1 + 0.2 != 0.3
    assert pair_by_score(trajectories([0.1 + 0.2, 0.3]), "best_worst") == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_trajectory_without_a_score_is_in_no_pair(strategy: PairStrategy) -> None:
    tried = trajectories([None, 0.0, 1.0], [None, 1.0], [None, None])
    assert pair_by_score(tried, strategy) == [(2, 1)]
    assert pair_by_score([], strategy) == []


@given(groups=st.lists(SCORES, min_size=1, max_size=3))
def test_every_pair_is_strict_within_a_group_and_missing_where_fewer_than_two_scores_differ(
    groups: list[list[float | None]],
) -> None:
    tried = trajectories(*groups)
    for strategy in STRATEGIES:
        pairs = pair_by_score(tried, strategy)
        for chosen, rejected in pairs:
            better, worse = tried[chosen], tried[rejected]
            assert better.group == worse.group
            assert better.score is not None
            assert worse.score is not None
            assert better.score > worse.score
        found = Counter(tried[chosen].group for chosen, _ in pairs)
        for g, group in enumerate(groups):
            distinct = len(set(group) - {None})
            expected = int(distinct > 1) if strategy == "best_worst" else max(0, distinct - 1)
            assert found[g] == expected


@given(scores=SCORES, data=st.data())
def test_the_order_within_a_group_does_not_change_which_scores_are_paired(
    scores: list[float | None], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(scores))
    for strategy in STRATEGIES:
        assert scores_of_pairs(trajectories(scores), strategy) == scores_of_pairs(trajectories(shuffled), strategy)


def test_groups_that_are_interleaved_are_paired_as_if_they_were_adjacent() -> None:
    tried = trajectories([0.0, 1.0, 0.5], [1.0, 0.0, 0.2])
    interleaved = [t for pair in zip(tried[:3], tried[3:], strict=True) for t in pair]
    for strategy in STRATEGIES:
        assert scores_of_pairs(interleaved, strategy) == scores_of_pairs(tried, strategy)


def played(group: int, score: float, rows: int = 1) -> Trajectory:
    """A trajectory of several rows: a prompt that identifies it, and two tokens sampled in each row."""
    trajectory = Trajectory(seed=group, group=group, score=score)
    trajectory.observe([group, int(10 * score)])
    for row in range(rows):
        if row:
            trajectory.start_row([group, int(10 * score), row])
        trajectory.act(Completion(0, [7, 8], [-0.5, -1.0], "stop", 0))
    return trajectory


def test_rows_of_a_pair_are_adjacent_with_the_chosen_ones_first() -> None:
    best, middle, worst = played(4, 1.0), played(4, 0.5, rows=2), played(4, 0.0)
    tried = [worst, best, middle]
    pairs = [(tried[chosen], tried[rejected]) for chosen, rejected in pair_by_score(tried, "adjacent")]
    batch = collate_pairs(pairs)
    assert batch["pair"].tolist() == [0, 0, 0, 1, 1, 1]
    assert batch["chosen"].tolist() == [True, False, False, True, True, False]
    assert batch["episode"].tolist() == [0, 1, 1, 2, 2, 3]  # the middle one is there twice
    assert batch["group"].tolist() == [4] * 6
    for key in ("tokens", "mask", "log_probs"):
        one = collate([middle])[key]
        for rows in (batch[key][1:3], batch[key][3:5]):
            torch.testing.assert_close(rows[:, : one.shape[1]], one)


def test_every_pair_has_both_sides() -> None:
    tried = [played(g, s) for g, s in itertools.product(range(3), (0.0, 0.2, 1.0))]
    batch = collate_pairs([(tried[i], tried[j]) for i, j in pair_by_score(tried, "best_worst")])
    for pair in range(3):
        sides = batch["chosen"][batch["pair"] == pair]
        assert sides.tolist() == [True, False]
    rewards = batch["reward"][batch["chosen"]], batch["reward"][~batch["chosen"]]
    assert (rewards[0] > rewards[1]).all()

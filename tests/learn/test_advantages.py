"""Group-relative advantages: known values, and what must not change them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmgym.learn.advantages import group_relative

ALL = torch.ones(4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("divide_by_std", "expected"),
    [(True, [0.70711, -0.70711, -0.70711, 0.70711]), (False, [0.5, -0.5, -0.75, 0.75])],
    ids=["GRPO", "Dr. GRPO"],
)
def test_known_values(divide_by_std: bool, expected: list[float]) -> None:
    reward, group = torch.tensor([1.0, 0.0, 0.5, 2.0]), torch.tensor([0, 0, 1, 1])
    advantage = group_relative(reward, group, ALL, divide_by_std=divide_by_std)
    torch.testing.assert_close(advantage, torch.tensor(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("reward", "group", "scored"),
    [
        ([3.0, 3.0, 3.0, 3.0], [0, 0, 0, 0], [True] * 4),
        ([1.0, 2.0, 3.0, 4.0], [0, 1, 2, 3], [True] * 4),
        ([1.0, 0.0, 0.0, 0.0], [0, 0, 0, 0], [True, False, False, False]),
        ([0.1 + 0.2, 0.3, 0.3, 0.3], [0, 0, 0, 0], [True] * 4),
        ([100.3] * 7, [0] * 7, [True] * 7),
        ([1000.1] * 8, [0] * 8, [True] * 8),
    ],
    ids=["all equal", "groups of one", "one scored", "equal up to rounding", "large and equal", "larger and equal"],
)
def test_a_group_without_a_difference_carries_no_signal(
    reward: list[float], group: list[int], scored: list[bool]
) -> None:
    advantage = group_relative(torch.tensor(reward), torch.tensor(group), torch.tensor(scored))
    assert not advantage.any()


BATCHES = st.lists(st.tuples(st.floats(-10, 10, width=32), st.integers(0, 3), st.booleans()), min_size=1, max_size=20)


def columns(rows: list[tuple[float, int, bool]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    reward, group, scored = zip(*rows, strict=True)
    return torch.tensor(reward), torch.tensor(group), torch.tensor(scored)


@given(BATCHES, st.randoms(use_true_random=False))
def test_order_and_names_of_groups_do_not_matter(rows: list[tuple[float, int, bool]], rng: object) -> None:
    order = list(range(len(rows)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    expected = group_relative(*columns(rows))[order]
    reward, group, scored = columns([rows[i] for i in order])
    torch.testing.assert_close(group_relative(reward, 1000 - 7 * group, scored), expected, atol=1e-4, rtol=1e-4)


@given(BATCHES)
def test_a_missing_score_is_as_if_the_member_were_not_there(rows: list[tuple[float, int, bool]]) -> None:
    reward, group, scored = columns(rows)
    advantage = group_relative(reward, group, scored)
    assert not advantage[~scored].any()
    if scored.any():
        alone = group_relative(reward[scored], group[scored], scored[scored])
        torch.testing.assert_close(advantage[scored], alone, atol=1e-4, rtol=1e-4)


@given(BATCHES)
def test_within_a_group_advantages_sum_to_zero_with_deviation_one(rows: list[tuple[float, int, bool]]) -> None:
    reward, group, scored = columns(rows)
    advantage = group_relative(reward, group, scored)
    for g in group.unique():
        members = advantage[(group == g) & scored]
        assert abs(members.sum()) < 1e-3
        if members.any():
            assert members.std() == pytest.approx(1.0, abs=1e-3)

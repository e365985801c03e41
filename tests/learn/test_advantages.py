"""Group-relative advantages: known values, and what must not change them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmgym.agents import GRPO
from llmgym.learn.advantages import group_relative
from llmgym.learn.aggregation import token_weights
from llmgym.learn.batch import collate
from llmgym.rollout.trajectory import Reply, Trajectory

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


# An episode of several rows is one episode.


def played(group: int, score: float | None, replies: list[int], new_rows: list[bool]) -> Trajectory:
    """An episode with replies of these lengths, each in a new row or in the one before it."""
    trajectory = Trajectory(seed=0, group=group, score=score)
    for turn, (length, new_row) in enumerate(zip(replies, new_rows, strict=True)):
        (trajectory.start_row if turn and new_row else trajectory.observe)([7, 7])
        start = len(trajectory.tokens)
        trajectory.observe([9] * length)
        trajectory.mask[start:] = [True] * length
        trajectory.replies.append(Reply(start, start + length, "stop", 0))
    return trajectory


EPISODES = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.none() | st.floats(-3, 3, width=32),
        st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=9,
)


@given(EPISODES, st.booleans())
def test_splitting_an_episode_into_rows_changes_no_advantage_and_no_weight(
    episodes: list[tuple[int, float | None, list[tuple[int, bool]]]], divide_by_std: bool
) -> None:
    agent = GRPO(divide_by_std=divide_by_std)
    split, whole = (
        agent.prepare(
            [
                played(group, score, [length for length, _ in turns], [new and splits for _, new in turns])
                for group, score, turns in sorted(episodes, key=lambda episode: episode[0])
            ]
        )
        for splits in (True, False)
    )
    assert len(whole) == len(episodes)
    for key in ("advantage", "token-mean", "seq-mean-token-mean"):
        seen = [
            batch[key] if key in batch else token_weights(batch["mask"], key, batch["episode"])  # type: ignore[arg-type]
            for batch in (split, whole)
        ]
        # Row by row the sampled tokens come in the same order, however many rows they stand in.
        torch.testing.assert_close(seen[0][split["mask"]], seen[1][whole["mask"]])


def test_rows_are_collated_with_what_their_episode_shares() -> None:
    batch = collate([played(3, 0.5, [1, 2, 1], [False, True, False]), played(3, None, [2], [False])])
    assert batch["tokens"].tolist() == [[7, 7, 9, 0, 0, 0, 0], [7, 7, 9, 9, 7, 7, 9], [7, 7, 9, 9, 0, 0, 0]]
    assert batch["mask"].sum(1).tolist() == [1, 3, 0]
    assert batch["length"].tolist() == [3, 7, 4]
    assert batch["prompt_length"].tolist() == [2, 2, 2]
    assert batch["episode"].tolist() == [0, 0, 1]
    assert batch["group"].tolist() == [3, 3, 3]
    assert batch["reward"].tolist() == [0.5, 0.5, 0.0]
    assert batch["scored"].tolist() == [True, True, False]

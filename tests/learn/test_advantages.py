"""Advantages of episodes: known values, and what must not change them."""

import statistics
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmgym.agents import GRPO
from llmgym.config.choices import Estimator
from llmgym.learn.advantages import ESTIMATORS
from llmgym.learn.aggregation import token_weights
from llmgym.learn.batch import collate
from llmgym.rollout.trajectory import Reply, Trajectory

WITHIN_GROUPS: list[Estimator] = [name for name in ESTIMATORS if name != "reinforce_plus_plus"]


def advantages(
    name: Estimator,
    reward: list[float],
    group: list[int],
    scored: list[bool] | None = None,
    length: list[int] | None = None,
) -> torch.Tensor:
    scores = torch.tensor([True] * len(reward) if scored is None else scored)
    lengths = torch.tensor([1] * len(reward) if length is None else length)
    return ESTIMATORS[name](torch.tensor(reward), torch.tensor(group), scores, lengths)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("group_std", [0.70711, -0.70711, -0.70711, 0.70711]),
        ("dr_grpo", [0.5, -0.5, -0.75, 0.75]),
        ("rloo", [1, -1, -1.5, 1.5]),
        ("optimal_baseline", [0.33333, -0.66667, -0.5, 1]),
        ("batch_std", [0.58554, -0.58554, -0.87831, 0.87831]),  # by 0.853913, the deviation of 1, 0, .5 and 2
    ],
)
def test_known_values(name: Estimator, expected: list[float]) -> None:
    found = advantages(name, [1.0, 0.0, 0.5, 2.0], [0, 0, 1, 1], length=[4, 2, 6, 3])
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)


# Every estimator once more, written for one episode after the other.


def of_group(i: int, reward: list[float], group: list[int]) -> list[int]:
    return [j for j in range(len(reward)) if group[j] == group[i]]


def per_token(values: list[float], length: list[int]) -> list[float]:
    """Standardise over a list in which each value is repeated for every token."""
    tokens = [value for value, n in zip(values, length, strict=True) for _ in range(n)]
    return [(value - statistics.mean(tokens)) / statistics.stdev(tokens) for value in values]


def naive(name: Estimator, reward: list[float], group: list[int], length: list[int]) -> list[float]:
    centred = [r - statistics.mean(reward[j] for j in of_group(i, reward, group)) for i, r in enumerate(reward)]
    if name == "reinforce_plus_plus":
        return per_token(reward, length)
    if name == "reinforce_plus_plus_baseline":
        return per_token(centred, length)
    found = []
    for i, r in enumerate(reward):
        siblings = of_group(i, reward, group)
        others = [reward[j] for j in siblings if j != i]
        weighted = sum(length[j] * reward[j] for j in siblings) / sum(length[j] for j in siblings)
        formula: dict[str, Callable[[], float]] = {
            "group_std": lambda: centred[i] / statistics.stdev(reward[j] for j in siblings),  # noqa: B023
            "dr_grpo": lambda: centred[i],  # noqa: B023
            "rloo": lambda: r - statistics.mean(others),  # noqa: B023
            "optimal_baseline": lambda: r - weighted,  # noqa: B023
            "batch_std": lambda: centred[i] / statistics.stdev(reward),  # noqa: B023
        }
        found.append(formula[name]())
    return found


@pytest.mark.parametrize("name", ESTIMATORS)
@given(st.randoms(use_true_random=False))
def test_every_estimator_is_its_equation(name: Estimator, rng: object) -> None:
    random = rng  # type: ignore[attr-defined]
    group = [g for g in range(3) for _ in range(random.randint(2, 5))]  # type: ignore[attr-defined]
    reward = [random.choice([0.0, 0.1, 0.25, 1.0]) + i / 100 for i in range(len(group))]  # type: ignore[attr-defined]
    length = [random.randint(1, 9) for _ in group]  # type: ignore[attr-defined]
    found = advantages(name, reward, group, length=length)
    torch.testing.assert_close(found, torch.tensor(naive(name, reward, group, length)), atol=1e-5, rtol=1e-5)


# No signal.


@pytest.mark.parametrize("name", WITHIN_GROUPS)
@pytest.mark.parametrize(
    ("reward", "group", "scored"),
    [
        ([3.0, 3.0, 3.0, 3.0], [0, 0, 0, 0], [True] * 4),
        ([1.0, 2.0, 3.0, 4.0], [0, 1, 2, 3], [True] * 4),
        ([1.0, 0.0, 0.0, 0.0], [0, 0, 0, 0], [True, False, False, False]),
        ([1.0, 2.0, 3.0], [0, 0, 0], [False] * 3),
        ([0.1 + 0.2, 0.3, 0.3, 0.3], [0, 0, 0, 0], [True] * 4),
        ([100.3] * 7, [0] * 7, [True] * 7),
        ([1000.1] * 8, [0] * 8, [True] * 8),
    ],
    ids=["equal", "groups of one", "one scored", "none scored", "equal but rounded", "large", "larger"],
)
def test_a_group_without_a_difference_carries_no_signal(
    name: Estimator, reward: list[float], group: list[int], scored: list[bool]
) -> None:
    # Beside them a group that has something to say, from which nothing may spill over.
    found = advantages(name, [*reward, 0.0, 1.0], [*group, 77, 77], [*scored, True, True])
    assert not found[:-2].any()
    assert found[-2] < 0 < found[-1]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_batch_without_a_difference_carries_no_signal(name: Estimator) -> None:
    for scored in ([True] * 4, [True, False, False, False], [False] * 4):
        assert not advantages(name, [0.7] * 4, [0, 0, 1, 1], scored).any()
    assert not advantages(name, [1.0, 0.0], [0, 0], length=[0, 0])[0].isnan()


def test_reinforce_plus_plus_compares_with_the_whole_batch_and_needs_no_siblings() -> None:
    found = advantages("reinforce_plus_plus", [1.0, 0.0, 0.5], [0, 1, 2], length=[1, 1, 1])
    torch.testing.assert_close(found, torch.tensor([1.0, -1.0, 0.0]))


# Properties.

ROWS = st.lists(
    st.tuples(st.floats(-10, 10, width=32), st.integers(0, 3), st.booleans(), st.integers(0, 9)),
    min_size=1,
    max_size=20,
)


def columns(rows: list[tuple[float, int, bool, int]]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor(column) for column in zip(*rows, strict=True))


@pytest.mark.parametrize("name", ESTIMATORS)
@given(ROWS, st.randoms(use_true_random=False))
def test_order_and_names_of_groups_do_not_matter(
    name: Estimator, rows: list[tuple[float, int, bool, int]], rng: object
) -> None:
    order = list(range(len(rows)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    expected = ESTIMATORS[name](*columns(rows))[order]
    reward, group, scored, length = columns([rows[i] for i in order])
    found = ESTIMATORS[name](reward, 1000 - 7 * group, scored, length)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ESTIMATORS)
@given(ROWS, st.floats(allow_nan=True, allow_infinity=True, width=32))
def test_a_missing_score_is_as_if_the_episode_were_not_there(
    name: Estimator, rows: list[tuple[float, int, bool, int]], nonsense: float
) -> None:
    reward, group, scored, length = columns(rows)
    found = ESTIMATORS[name](reward.masked_fill(~scored, nonsense), group, scored, length)
    assert not found[~scored].any()
    if scored.any():
        alone = ESTIMATORS[name](*(column[scored] for column in (reward, group, scored, length)))
        torch.testing.assert_close(found[scored], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ESTIMATORS)
@given(ROWS)
def test_adding_the_same_to_all_rewards_changes_nothing(
    name: Estimator, rows: list[tuple[float, int, bool, int]]
) -> None:
    reward, group, scored, length = columns(rows)
    reward = (reward * 4).round() / 4  # so that the sum is exact
    expected = ESTIMATORS[name](reward, group, scored, length)
    torch.testing.assert_close(ESTIMATORS[name](reward + 2, group, scored, length), expected, atol=1e-5, rtol=1e-5)


@given(ROWS)
def test_within_a_group_advantages_sum_to_zero_with_deviation_one(rows: list[tuple[float, int, bool, int]]) -> None:
    reward, group, scored, length = columns(rows)
    found = ESTIMATORS["group_std"](reward, group, scored, length)
    for g in group.unique():
        members = found[(group == g) & scored]
        assert abs(members.sum()) < 1e-3
        if members.any():
            assert members.std() == pytest.approx(1.0, abs=1e-3)


@given(ROWS)
def test_the_optimal_baseline_leaves_no_sum_over_tokens(rows: list[tuple[float, int, bool, int]]) -> None:
    reward, group, scored, length = columns(rows)
    found = ESTIMATORS["optimal_baseline"](reward, group, scored, length)
    for g in group.unique():
        assert abs((found * length)[group == g].sum()) < 1e-3


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


@given(EPISODES, st.sampled_from(list(ESTIMATORS)))
def test_splitting_an_episode_into_rows_changes_no_advantage_and_no_weight(
    episodes: list[tuple[int, float | None, list[tuple[int, bool]]]], estimator: Estimator
) -> None:
    agent = GRPO(advantage=estimator)
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
        # Row by row the sampled tokens come in the same order, however many rows they are in.
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

"""What counts as a difference between rewards is one thing, for advantages, pairs, win rates and dynamic sampling."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmgym.agents import GRPO
from llmgym.config.choices import Estimator
from llmgym.learn.advantages import ESTIMATORS, whiten
from llmgym.learn.pairing import pair_by_score
from llmgym.learn.signal import differ
from llmgym.learn.win_rates import win_rates
from llmgym.rollout.trajectory import Trajectory

ROUNDED = [[0.6, 0.6000000000000001], [0.1 + 0.2, 0.3], [1e9 + 1, 1e9 + 2], [0.1 + 0.2 - 0.3, 0.0], [5.0] * 3]
DISTINCT = [[0.0, 1e-6], [5e-7, 1.5e-6, 2.5e-6], [1_000_000, 1_000_001], [-1e-6, 1e-6], [0.5, 0.50001]]


def verdicts(rewards: list[float]) -> dict[str, bool]:
    """Ask everything that compares rewards whether these differ."""
    siblings = [Trajectory(0, 0, score=float(reward)) for reward in rewards]
    reward = torch.tensor(rewards, dtype=torch.float32)
    group, scored = torch.zeros(len(rewards), dtype=torch.long), torch.ones(len(rewards), dtype=torch.bool)
    found: dict[str, bool] = {
        name: bool(estimate(reward, group, scored, torch.ones_like(group)).any())
        for name, estimate in ESTIMATORS.items()
    }
    found["dynamic sampling"] = GRPO().teaches(siblings)
    found["pairs"] = bool(pair_by_score(siblings, "best_worst"))
    found["neighbours"] = bool(pair_by_score(siblings, "adjacent"))
    found["win rates"] = bool((win_rates(reward, group, scored) != 0.5).any())
    return found


@pytest.mark.parametrize("rewards", ROUNDED, ids=str)
def test_rewards_that_differ_by_rounding_teach_nothing(rewards: list[float]) -> None:
    assert not any(verdicts(rewards).values()), verdicts(rewards)


@pytest.mark.parametrize("rewards", DISTINCT, ids=str)
def test_rewards_that_differ_teach_whatever_their_scale(rewards: list[float]) -> None:
    assert all(verdicts(rewards).values()), verdicts(rewards)


@pytest.mark.parametrize(
    "rewards",
    [
        [114.42976680388163, 114.42970989696909],  # differ by just more than rounding, and by less in float32
        [0.7022388421333001, 0.7022385123495116],  # the other way round
    ],
    ids=str,
)
def test_all_agree_at_the_edge_of_rounding(rewards: list[float]) -> None:
    assert len(set(verdicts(rewards).values())) == 1, verdicts(rewards)


@pytest.mark.parametrize("rewards", DISTINCT, ids=str)
def test_whitening_keeps_what_differs(rewards: list[float]) -> None:
    values = torch.tensor([rewards], dtype=torch.float32)
    white = whiten(values, torch.ones_like(values, dtype=torch.bool))
    assert float(white.std()) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([5e-7, 1.5e-6, 2.5e-6], [-1.0, 0.0, 1.0]),
        ([1_000_000, 1_000_001], [-0.70711, 0.70711]),
        ([0.0, 1e-6], [-0.70711, 0.70711]),
    ],
    ids=str,
)
def test_grpo_standardises_rewards_of_any_scale(rewards: list[float], expected: list[float]) -> None:
    name: Estimator = "group_std"
    group = torch.zeros(len(rewards), dtype=torch.long)
    found = ESTIMATORS[name](torch.tensor(rewards, dtype=torch.float32), group, group == 0, group + 1)
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=0)


@given(
    st.lists(st.integers(-20, 20), min_size=2, max_size=6),
    st.integers(-8, 8),
    st.lists(st.integers(-2, 2), min_size=6, max_size=6),
)
def test_everybody_agrees_up_to_noise_and_at_every_scale(integers: list[int], power: int, noise: list[int]) -> None:
    rewards = [
        float(np.float32(integer) * np.float32(10.0) ** power * (1 + jitter * 1e-16))
        for integer, jitter in zip(integers, noise, strict=False)
    ]
    expected = len(set(integers)) > 1
    assert differ(rewards) == expected
    found = verdicts(rewards)
    assert all(verdict == expected for verdict in found.values()), found

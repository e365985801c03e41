"""Rewards of turns land on the last token sampled in each, and sum up to the score."""

import pytest
import torch

from llmgym.engines.base import Completion
from llmgym.learn.batch import collate
from llmgym.learn.rewards import token_rewards
from llmgym.rollout.trajectory import Trajectory


def episode(turns: list[tuple[int, float]], score: float | None, *, rewritten: bool = False) -> Trajectory:
    """A prompt of 3 tokens, then turns of so many sampled tokens and such rewards, 2 tokens between them."""
    trajectory = Trajectory(seed=0, group=0)
    trajectory.observe([1, 2, 3])
    for turn, (length, reward) in enumerate(turns):
        if turn:
            (trajectory.start_row if rewritten else trajectory.observe)([8, 9])
        trajectory.act(Completion(0, [5] * length, [-1.0] * length, "stop", 0))
        trajectory.replies[-1].reward = reward
    trajectory.score = score
    return trajectory


def rewards_of(*trajectories: Trajectory) -> torch.Tensor:
    batch = collate(trajectories)
    rewards = token_rewards(trajectories, batch["tokens"].shape[1])
    assert rewards.shape == batch["mask"].shape
    assert not rewards[~batch["mask"]].any()
    return rewards


def test_a_turns_reward_lands_on_its_last_sampled_token() -> None:
    rewards = rewards_of(episode([(2, 0.25), (3, 0.5)], 0.75), episode([(1, 1.0)], 1.0))
    assert rewards[0].tolist() == [0, 0, 0, 0, 0.25, 0, 0, 0, 0, 0.5]
    assert rewards[1].tolist() == [0, 0, 0, 1.0, 0, 0, 0, 0, 0, 0]


def test_what_a_scorer_gave_for_the_whole_episode_lands_on_the_last_sampled_token() -> None:
    (rewards,) = rewards_of(episode([(2, 0.0), (3, 0.0)], 0.6))
    assert rewards.nonzero().tolist() == [[9]]
    assert rewards.sum() == pytest.approx(0.6)


@pytest.mark.parametrize("score", [-1.0, 0.0, 0.3, 2.0])
def test_token_rewards_sum_up_to_the_score(score: float) -> None:
    (rewards,) = rewards_of(episode([(2, 0.25), (1, -0.5), (3, 0.5)], score))
    assert rewards.sum().item() == pytest.approx(score)
    assert rewards[[4, 7]].tolist() == [0.25, -0.5]


def test_the_reward_of_a_reply_without_tokens_lands_on_the_last_sampled_token() -> None:
    (rewards,) = rewards_of(episode([(2, 0.25), (0, 0.5)], 0.75))
    assert rewards.tolist() == [0, 0, 0, 0, 0.75, 0, 0]


def test_an_episode_without_a_score_or_without_tokens_earned_nothing() -> None:
    missing, silent = episode([(2, 0.25)], None), episode([(0, 0.5)], 0.5)
    assert not rewards_of(missing, silent).any()


def test_rows_of_an_episode_earn_what_was_sampled_in_them() -> None:
    rewards = rewards_of(episode([(2, 0.25), (3, 0.5)], 0.75, rewritten=True), episode([(1, 1.0)], 1.0))
    assert rewards.tolist() == [[0, 0, 0, 0, 0.25], [0, 0, 0, 0, 0.5], [0, 0, 0, 1.0, 0]]

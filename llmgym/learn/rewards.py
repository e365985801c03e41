"""From the rewards of turns to rewards of tokens."""

import bisect
from collections.abc import Sequence

import torch
from torch import Tensor

from llmgym.rollout.trajectory import Trajectory


def token_rewards(trajectories: Sequence[Trajectory], width: int) -> Tensor:
    """Return what each token earned: a turn's reward lands on the last token that was sampled in it.

    They sum up to the trajectory's score. What no reply's tokens earned, such as what a scorer
    gave for the whole episode, lands on the last sampled token. An episode without a score
    earned nothing.

    Args:
        trajectories: As they were given to `collate`.
        width: T of its batch.

    Returns:
        The rewards, in the rows of the batch.  [B, T]
    """
    rewards = torch.zeros(sum(len(trajectory.row_starts) for trajectory in trajectories), width)
    first = 0  # row of the trajectory
    for trajectory in trajectories:
        replies = [reply for reply in trajectory.replies if reply.stop > reply.start]
        if trajectory.score is not None and replies:
            earned = [reply.reward for reply in replies]
            earned[-1] += trajectory.score - sum(earned)
            for reply, reward in zip(replies, earned, strict=True):
                row = bisect.bisect_right(trajectory.row_starts, reply.stop - 1) - 1
                rewards[first + row, reply.stop - 1 - trajectory.row_starts[row]] = reward
        first += len(trajectory.row_starts)
    return rewards

"""Advantages of stored episodes, recomputed from the scores of a group.

Files hold scores and no advantages. Where an episode's advantage follows from its group alone, it is computed again, as
`llmgym.learn.advantages.episodes` does with tensors, and no torch is loaded for it.
"""

import numpy as np
from numpy.typing import NDArray

from llmgym.learn.signal import differ

FROM_A_GROUP = ("group_std", "dr_grpo", "rloo", "optimal_baseline")
"""The estimators that need no more than the group; the others compare with the whole batch."""

Numbers = NDArray[np.float64]


def advantages(estimator: str, score: Numbers, length: Numbers) -> Numbers:
    r"""Return the advantage of each episode of a group; 0 where nothing can be learnt.

    Args:
        estimator: One of `FROM_A_GROUP`; their docstrings have the equations.
        score: NaN where there is none.  [G]
        length: Sampled tokens.  [G]

    Examples:
        >>> advantages("dr_grpo", np.array([1.0, 0.0, np.nan]), np.ones(3)).tolist()
        [0.5, -0.5, 0.0]
    """
    scored = ~np.isnan(score)
    found = np.zeros(len(score))
    reward = score[scored]
    if not differ(reward.tolist()):
        return found
    count, weight = len(reward), length[scored]
    baseline = reward.mean()
    if estimator == "optimal_baseline":
        if not weight.sum():
            return found
        baseline = (weight * reward).sum() / weight.sum()
    scale = {"group_std": reward.std(ddof=1), "rloo": (count - 1) / count}.get(estimator, 1.0)
    found[scored] = (reward - baseline) / scale
    return found

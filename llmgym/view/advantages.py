"""Advantages of stored episodes, recomputed from the scores of a group.

Files hold scores and no advantages. Where an episode's advantage follows from its group alone, it is computed again, as
`llmgym.learn.advantages.episodes` does with tensors, and no torch is loaded for it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmgym.learn.signal import differ

FROM_A_GROUP = {
    "group_std": "(reward − mean of its group) ÷ standard deviation of its group",
    "dr_grpo": "reward − mean of its group",
    "rloo": "reward − mean of the others of its group",
    "optimal_baseline": "reward − mean of its group, weighted by sampled tokens",
}
"""The estimators that need no more than the group, in words; the others compare with the whole batch."""

Numbers = NDArray[np.float64]


def from_a_group(config: Mapping[str, Any]) -> str | None:
    """Return the estimator of a run, given its options, if it is one of `FROM_A_GROUP`."""
    name = config.get("advantage")
    return name if isinstance(name, str) and name in FROM_A_GROUP else None


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

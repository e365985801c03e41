"""What counts as a difference between rewards: anything beyond rounding, whatever their scale.

Everything that compares rewards uses this: advantages, pairs, win rates, and the choice of groups worth
learning from. So a group that one of them calls tied is tied for all.
"""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Number = TypeVar("Number")

_RELATIVE = 2.0**-21  # four units in the last place of float32, in which batches hold rewards
_ABSOLUTE = 1e-12  # what parts of size 1 leave in double precision when they cancel out


def rounding_of(largest: Number) -> Number:
    """Return the largest difference at which rewards count as equal.

    Args:
        largest: The largest absolute value among the rewards compared, a float or a tensor of any shape.

    Examples:
        >>> rounding_of(1.0) < 1e-6 < 1.0
        True
    """
    return largest * _RELATIVE + _ABSOLUTE  # type: ignore[operator,return-value]  # either type


def ranks(rewards: Sequence[float]) -> list[int]:
    """Return the rank of each reward, 0 for the largest; those that differ by rounding share a rank.

    Examples:
        >>> ranks([0.3, 1.0, 0.1 + 0.2])
        [1, 0, 1]
    """
    rewards = [float(np.float32(reward)) for reward in rewards]  # as batches hold them, so that all agree on a tie
    rounding = rounding_of(max(map(abs, rewards), default=0.0))
    found = [0] * len(rewards)
    rank, head = -1, math.inf  # head: the largest reward of the rank
    for index in sorted(range(len(rewards)), key=lambda index: -rewards[index]):
        if head - rewards[index] > rounding:
            rank, head = rank + 1, rewards[index]
        found[index] = rank
    return found


def differ(rewards: Sequence[float]) -> bool:
    """Tell whether rewards differ by more than rounding; fewer than two never do.

    Examples:
        >>> differ([0.6, 0.6000000000000001]), differ([0.0, 1e-6]), differ([1e6, 1e6 + 1])
        (False, True, True)
    """
    return any(ranks(rewards))

"""From scored groups to preference pairs, and from pairs to a batch."""

import itertools
from collections.abc import Sequence

from tensordict import TensorDict

from llmgym.config.choices import PairStrategy
from llmgym.learn.batch import collate
from llmgym.learn.signal import ranks
from llmgym.rollout.trajectory import Trajectory


def pair_by_score(trajectories: Sequence[Trajectory], strategy: PairStrategy) -> list[tuple[int, int]]:
    """Pair trajectories of the same group, the one with the higher score first.

    A tie makes no pair, and a trajectory without a score is in none, so a group with fewer
    than two distinct scores gives nothing. Which of several with equal scores is taken is
    decided by their order, and everything else by the scores alone. Scores that differ by rounding
    (`llmgym.learn.signal`) tie.

    Args:
        trajectories: With `group` and `score`, in any order.
        strategy: Which pairs of a group.

    Returns:
        Indices (chosen, rejected), groups in the order in which they first appear.
    """
    groups: dict[int, list[int]] = {}
    for index, trajectory in enumerate(trajectories):
        if trajectory.score is not None:
            groups.setdefault(trajectory.group, []).append(index)
    pairs = []
    for members in groups.values():
        scores = [score for index in members if (score := trajectories[index].score) is not None]
        rank = dict(zip(members, ranks(scores), strict=True))
        ranked = sorted(members, key=rank.__getitem__)
        candidates = [(ranked[0], ranked[-1])] if strategy == "best_worst" else itertools.pairwise(ranked)
        pairs += [(chosen, rejected) for chosen, rejected in candidates if rank[chosen] < rank[rejected]]
    return pairs


def collate_pairs(pairs: Sequence[tuple[Trajectory, Trajectory]]) -> TensorDict:
    """Collate pairs (chosen, rejected) of trajectories into a preference batch [B].

    The rows of a pair are adjacent, the chosen episode's first. A trajectory in two pairs
    is there twice, as two episodes.

    Returns:
        What `collate` returns, and in addition

        - ``pair`` [B] int64: the index of the row's pair
        - ``chosen`` [B] bool: the row belongs to the pair's chosen episode
    """
    batch = collate([trajectory for pair in pairs for trajectory in pair])
    batch["pair"] = batch["episode"] // 2
    batch["chosen"] = batch["episode"] % 2 == 0
    return batch

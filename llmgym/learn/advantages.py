"""Advantage estimators: from the rewards of a batch to how much better each trajectory was than expected."""

import torch
from torch import Tensor


def group_relative(reward: Tensor, group: Tensor, scored: Tensor, *, divide_by_std: bool = True) -> Tensor:
    r"""Compare each reward with those of its group (GRPO, arXiv:2402.03300, section 4.1.2).

    .. math:: A_i = (r_i - \mathrm{mean}(r)) / \mathrm{std}(r)

    A group carries no signal, and its advantages are 0, when fewer than two of its
    members are scored or all scores are equal. Members without a score have advantage 0
    and no part in the mean.

    Args:
        reward: Total reward of each trajectory.  [B]
        group: The group of each trajectory, as any integer.  [B]
        scored: Whether the trajectory's score is there.  [B]
        divide_by_std: False leaves the division out (Dr. GRPO, arXiv:2503.20783).

    Returns:
        Advantages.  [B]
    """
    member = torch.unique(group, return_inverse=True)[1]  # [B], 0 to G-1
    groups = int(member.max()) + 1
    known = scored.double()

    def group_sum(values: Tensor) -> Tensor:  # [B] -> [G]
        return values.new_zeros(groups).index_add_(0, member, values)

    count = group_sum(known)
    mean = group_sum(reward * known) / count.clamp(min=1)
    centred = (reward - mean[member]) * known
    std = (group_sum(centred**2) / (count - 1).clamp(min=1)).sqrt()
    # Relative to the rewards, in double precision: rounding must not turn equal rewards into advantages.
    informative = (std > 1e-6 * mean.abs().clamp(min=1))[member] & scored
    scale = std[member] if divide_by_std else torch.ones_like(centred)
    return torch.where(informative, centred / torch.where(informative, scale, 1.0), 0.0).to(reward.dtype)

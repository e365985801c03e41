"""`ClippedPolicyLoss`: the clipped surrogate of PPO and its kin, without a critic."""

from typing import Any

import torch
from torch import Tensor

from llmgym.learn.losses.policy_gradient import PolicyGradientLoss
from llmgym.learn.policy import Policy


def clipped_surrogate(
    log_ratio: Tensor, advantage: Tensor, clip_epsilon: tuple[float, float], dual_clip: float | None = None
) -> Tensor:
    r"""Return the loss of each token (PPO, arXiv:1707.06347, equation 7).

    .. math:: \ell = -\min(\rho A,\ \mathrm{clip}(\rho, 1-\epsilon_-, 1+\epsilon_+) A)

    With a dual clip (arXiv:1912.09729) it is :math:`\min(\ell, -c A)` where :math:`A < 0`: a token
    whose ratio has grown far too large has no gradient any more.

    Args:
        log_ratio: Of the policy to the old one.  [B, T]
        advantage: [B, T]
        clip_epsilon: How far below and above 1 the ratio counts; more above than below is
            the "clip-higher" of DAPO (arXiv:2503.14476, section 3.1).
        dual_clip: c, above 1; None for no second bound.

    Returns:
        Losses.  [B, T]
    """
    low, high = clip_epsilon
    ratio = log_ratio.exp()
    gain = torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
    if dual_clip is not None:
        gain = torch.where(advantage < 0, torch.maximum(gain, dual_clip * advantage), gain)
    return -gain


class ClippedPolicyLoss(PolicyGradientLoss):
    """`clipped_surrogate` as a TorchRL module; with ``ratio="sequence"`` it is GSPO (arXiv:2507.18071).

    Args:
        policy: The actor.
        dual_clip: The bound of the loss where the advantage is negative; None for none.
        options: As for `PolicyGradientLoss`.
    """

    def __init__(self, policy: Policy, *, dual_clip: float | None = None, **options: Any) -> None:
        super().__init__(policy, **options)
        self.dual_clip = dual_clip

    def surrogate(self, log_probs: Tensor, log_ratio: Tensor, advantage: Tensor) -> Tensor:
        """Return the loss of each token.  [B, T]"""
        return clipped_surrogate(log_ratio, advantage, self.clip_epsilon, self.dual_clip)

"""`CISPOLoss`: clipped importance sampling weights, from MiniMax-M1."""

from torch import Tensor

from llmgym.learn.losses.policy_gradient import PolicyGradientLoss


def cispo_surrogate(
    log_probs: Tensor, log_ratio: Tensor, advantage: Tensor, clip_epsilon: tuple[float, float]
) -> Tensor:
    r"""Return the loss of each token (arXiv:2506.13585).

    .. math:: \ell = -\mathrm{sg}[\mathrm{clip}(\rho, 1-\epsilon_-, 1+\epsilon_+)]\, A \log \pi(a)

    The ratio is a weight without a gradient. So a token beyond the bounds, which in PPO is
    out of the loss, keeps the gradient of its log-probability, with a bounded weight.

    Args:
        log_probs: Of the policy.  [B, T]
        log_ratio: Of the policy to the old one.  [B, T]
        advantage: [B, T]
        clip_epsilon: How far below and above 1 the weight may be; 1 below is no bound, as in the paper.

    Returns:
        Losses.  [B, T]
    """
    low, high = clip_epsilon
    return -log_ratio.detach().exp().clamp(1 - low, 1 + high) * advantage * log_probs


class CISPOLoss(PolicyGradientLoss):
    """`cispo_surrogate` as a TorchRL module; see `PolicyGradientLoss` for the arguments."""

    def surrogate(self, log_probs: Tensor, log_ratio: Tensor, advantage: Tensor) -> Tensor:
        """Return the loss of each token.  [B, T]"""
        return cispo_surrogate(log_probs, log_ratio, advantage, self.clip_epsilon)

r"""KTO: Kahneman-Tversky Optimisation (Ethayarajh et al. 2024, arXiv:2402.01306)."""

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from llmgym.learn.losses.units import UnitLoss, of_units, row_log_ratios, sum_units
from llmgym.learn.policy import Policy


def kto_loss(
    log_ratio: Tensor,
    desirable: Tensor,
    reference_point: Tensor,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    r"""Return the loss of each answer (section 4.1).

    .. math:: \lambda_D \left(1 - \sigma(\beta (r - z_0))\right) \text{ if desirable, else }
              \lambda_U \left(1 - \sigma(\beta (z_0 - r))\right)

    with :math:`r = \log \pi(y|x) / \pi_\mathrm{ref}(y|x)`.

    Args:
        log_ratio: Log-probability of the whole answer under the policy, minus that under the reference.  [E]
        desirable: Whether the answer is a good one.  [E]
        reference_point: :math:`z_0`, see the function of that name.  [] or [E]
        beta: How close the policy stays to the reference: the larger, the closer.
        desirable_weight: :math:`\lambda_D`.
        undesirable_weight: :math:`\lambda_U`.

    Returns:
        Losses.  [E]
    """
    gain = torch.where(desirable, log_ratio - reference_point, reference_point - log_ratio)
    weight = torch.where(desirable, desirable_weight, undesirable_weight)
    return weight * torch.sigmoid(-beta * gain)


def reference_point(mismatched_log_ratio: Tensor) -> Tensor:
    r"""Estimate how far the policy is from the reference, as the point that gains and losses are measured from.

    .. math:: z_0 = \max\left(0, \frac{1}{m} \sum_i \log \frac{\pi(y_j|x_i)}{\pi_\mathrm{ref}(y_j|x_i)}\right)

    where each prompt has the answer to another one. It has no gradient.

    Args:
        mismatched_log_ratio: Log-ratios of the answers to other prompts; of none at all, z_0 is 0.  [M]
    """
    return mismatched_log_ratio.detach().sum().div(max(1, len(mismatched_log_ratio))).clamp(min=0)


class KTOLoss(UnitLoss):
    """`kto_loss` as a TorchRL module.

    Args:
        policy: What learns.
        beta: How close the policy stays to the reference.
        desirable_weight: Of answers that are desirable.
        undesirable_weight: Of those that are not.

    The batch holds ``tokens``, ``mask`` and ``ref_log_probs`` [B, T], ``episode`` [B] (rows with
    the same number are one answer), ``desirable`` [B] and ``reference_point`` [B], which
    `reference_point` gives once for a whole optimiser batch. Metrics: ``accuracy``, the share
    of answers on the right side of the reference point (one exactly on it counts half); ``gain``,
    the mean distance from it in implicit reward, beta times the log-ratio, with the sign
    turned for what is undesirable; ``reference_point`` in nats.
    """

    unit = "episode"
    reads = ("desirable", "reference_point", "ref_log_probs")

    def __init__(
        self, policy: Policy, *, beta: float = 0.1, desirable_weight: float = 1.0, undesirable_weight: float = 1.0
    ) -> None:
        super().__init__(policy)
        self.beta = beta
        self.desirable_weight = desirable_weight
        self.undesirable_weight = undesirable_weight

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """Return ``loss_kto``, the weighted sum over answers, and the metrics."""
        episode = tensordict["episode"]
        log_ratio = sum_units(row_log_ratios(self.log_probs(tensordict), tensordict), episode)  # [E]
        desirable, point = (of_units(tensordict[key], episode) for key in ("desirable", "reference_point"))
        losses = kto_loss(log_ratio, desirable, point, self.beta, self.desirable_weight, self.undesirable_weight)
        gain = self.beta * torch.where(desirable, log_ratio - point, point - log_ratio).detach()
        return TensorDict(
            {
                "loss_kto": self.weigh(tensordict, losses),
                "accuracy": ((gain.sign() + 1) / 2).mean(),
                "gain": gain.mean(),
                "reference_point": point.mean(),
            }
        )

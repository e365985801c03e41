r"""SPPO: Self-Play Preference Optimisation (Wu et al. 2024, arXiv:2405.00675)."""

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from llmgym.learn.losses.units import UnitLoss, of_units, row_log_ratios, sum_units
from llmgym.learn.policy import Policy


def sppo_loss(log_ratio: Tensor, win_rate: Tensor, eta: float) -> Tensor:
    r"""Return the loss of each response (section 4).

    .. math:: \tfrac12 \left(\log \frac{\pi(y|x)}{\pi_\mathrm{ref}(y|x)}
              - \eta \left(P(y \succ \pi_\mathrm{ref}) - \tfrac12\right)\right)^2

    The multiplicative-weights step :math:`\pi \propto \pi_\mathrm{ref} \exp(\eta P)` has
    :math:`\eta P - \log Z` as its log-ratio. As in the paper, :math:`\log Z` is taken to be
    :math:`\eta / 2`, its value where every response wins as often as it loses; so the loss
    is 0 exactly at the equilibrium, and its minimum near the step elsewhere.

    Args:
        log_ratio: Log-probability of the whole response under the policy, minus that under
            the reference, the policy that sampled it.  [E]
        win_rate: How often the response beats one of the reference's.  [E]
        eta: Step size of the game: how far a response that always wins moves in one iteration.

    Returns:
        Losses.  [E]
    """
    return 0.5 * (log_ratio - eta * (win_rate - 0.5)) ** 2


class SPPOLoss(UnitLoss):
    """`sppo_loss` as a TorchRL module, a mean over the responses that have a win rate.

    Args:
        policy: What learns.
        eta: Step size of the game.

    The batch holds ``tokens``, ``mask`` and ``ref_log_probs`` [B, T], ``win_rate`` [B], NaN where
    it is missing, and ``episode`` [B]: rows with the same number are one response. Metrics:
    ``log_ratio``, the mean of the responses' log-ratios; ``accuracy``, the share
    of responses that became likelier if they win more than they lose, or less likely if they
    lose more (neither counts half).
    """

    unit = "episode"
    reads = ("win_rate", "ref_log_probs")

    def __init__(self, policy: Policy, *, eta: float = 1000.0) -> None:
        super().__init__(policy)
        self.eta = eta

    def weights(self, batch: TensorDictBase) -> Tensor:
        """Return the same weight for every response that has a win rate, and 0 for the others.  [B]"""
        weight: Tensor = ~batch["win_rate"].isnan() / max(1, self.count(batch))
        return weight

    def count(self, batch: TensorDictBase) -> int:
        """Return the number of responses that have a win rate."""
        return len(batch["episode"][~batch["win_rate"].isnan()].unique())

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """Return ``loss_sppo``, the weighted sum over responses, and the metrics."""
        log_ratio = sum_units(row_log_ratios(self.log_probs(tensordict), tensordict), tensordict["episode"])  # [E]
        win_rate = of_units(tensordict["win_rate"], tensordict["episode"])  # [E]
        known = ~win_rate.isnan()
        losses = sppo_loss(log_ratio, torch.where(known, win_rate, 0.5), self.eta)
        moved = log_ratio.detach()[known]
        right_way = (moved.sign() * (win_rate[known] - 0.5).sign() + 1) / 2
        return TensorDict(
            {
                "loss_sppo": self.weigh(tensordict, losses),
                "log_ratio": moved.sum() / max(1, len(moved)),
                "accuracy": right_way.sum() / max(1, len(moved)),
            }
        )

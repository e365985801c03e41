"""`UnitLoss`: the base of losses over whole answers, single or in pairs."""

import torch
from tensordict import TensorDictBase
from torch import Tensor

from llmgym.learn.losses.base import LanguageModelLoss
from llmgym.learn.policy import Policy


class UnitLoss(LanguageModelLoss):
    """The base of losses that count every episode, or every pair, once and equally.

    Args:
        policy: What learns.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.actor_network = policy

    def log_probs(self, batch: TensorDictBase) -> Tensor:
        """Return the log-probability of every sampled token, 0 elsewhere, and leave it in the batch.  [B, T]"""
        log_probs: Tensor = self.actor_network.get_dist(batch).log_prob(batch["tokens"])
        batch["policy_log_probs"] = log_probs.detach()
        return log_probs

    def weigh(self, batch: TensorDictBase, losses: Tensor) -> Tensor:
        """Return the weighted sum of the losses of a batch's units, in the order of their numbers.  [U] -> []"""
        return (of_units(self.weight_of(batch), batch[self.unit]) * losses).sum()


def sum_units(values: Tensor, unit: Tensor) -> Tensor:
    """Sum values over the rows of each unit, in the order of the units' numbers.  [B] -> [U]"""
    index = torch.unique(unit, return_inverse=True)[1]
    return values.new_zeros(int(index.max()) + 1).index_add(0, index, values)


def of_units(values: Tensor, unit: Tensor) -> Tensor:
    """Return the value that all rows of a unit share, once per unit, in the order of the units' numbers.  [B] -> [U]"""
    index = torch.unique(unit, return_inverse=True)[1]
    first = index == torch.arange(int(index.max()) + 1, device=unit.device)[:, None]  # [U, B]
    return values[first.int().argmax(dim=1)]


def row_log_ratios(log_probs: Tensor, batch: TensorDictBase) -> Tensor:
    r"""Return the sum of :math:`\log \pi(a_t) / \pi_\mathrm{ref}(a_t)` over the sampled tokens of each row.

    Args:
        log_probs: The policy's.  [B, T]
        batch: ``mask`` and ``ref_log_probs`` [B, T].

    Returns:
        Sums; 0 where nothing was sampled.  [B]
    """
    return torch.where(batch["mask"], log_probs - batch["ref_log_probs"], 0.0).sum(dim=1)

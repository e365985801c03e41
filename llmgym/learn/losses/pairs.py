"""`PairLoss`: what all losses over pairs of answers share."""

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from llmgym.errors import DataError
from llmgym.learn.aggregation import unit_weights
from llmgym.learn.losses.base import LanguageModelLoss
from llmgym.learn.policy import Policy


class PairLoss(LanguageModelLoss):
    """The base of losses over pairs of a chosen and a rejected answer.

    The batch holds ``tokens`` and ``mask`` [B, T], ``pair`` [B] (rows with the same number
    are one pair, which a micro-batch never splits) and ``chosen`` [B] (to which of the
    pair's two answers a row belongs). Each pair counts the same. ``weight`` [B], where it
    is there, says how much.

    Args:
        policy: What learns.
    """

    unit = "pair"

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.actor_network = policy

    def weights(self, batch: TensorDictBase) -> Tensor:
        """Return the same weight for every pair, 1 in total.  [B]"""
        return unit_weights(batch["pair"])

    def count(self, batch: TensorDictBase) -> int:
        """Return the number of pairs."""
        return len(batch["pair"].unique())

    def log_probs(self, batch: TensorDictBase) -> Tensor:
        """Return the log-probability of every sampled token, 0 elsewhere, and leave it in the batch.  [B, T]"""
        log_probs: Tensor = self.actor_network.get_dist(batch).log_prob(batch["tokens"])
        batch["policy_log_probs"] = log_probs.detach()
        return log_probs

    def weigh(self, batch: TensorDictBase, losses: Tensor) -> Tensor:
        """Return the weighted sum of the losses [P] of a batch's pairs.  []"""
        weight = batch["weight"] if "weight" in batch.keys() else self.weights(batch)  # noqa: SIM118  # no mapping
        first = _pair_index(batch)[:, None] == torch.arange(len(losses), device=weight.device)  # [B, P]
        return (weight[first.int().argmax(dim=0)] * losses).sum()


def log_ratios(log_probs: Tensor, batch: TensorDictBase) -> tuple[Tensor, Tensor]:
    r"""Return :math:`\log \pi(y|x) / \pi_\mathrm{ref}(y|x)` of every pair's chosen and rejected answer.

    Args:
        log_probs: The policy's.  [B, T]
        batch: ``mask`` and ``ref_log_probs`` [B, T], ``pair`` and ``chosen`` [B].

    Returns:
        Two tensors [P], in the order of the pairs' numbers. An answer without tokens has 0.
    """
    return by_pair(torch.where(batch["mask"], log_probs - batch["ref_log_probs"], 0.0).sum(dim=1), batch)


def by_pair(values: Tensor, batch: TensorDictBase) -> tuple[Tensor, Tensor]:
    """Sum values of rows [B] over each pair's chosen answer, and over its rejected one.

    Raises:
        DataError: A pair lacks one of its answers: the batch was split between them.
    """
    pair, chosen = _pair_index(batch), batch["chosen"]
    pairs = int(pair.max()) + 1
    rows = torch.stack([pair.new_zeros(pairs).index_add_(0, pair, side.long()) for side in (chosen, ~chosen)])
    if not rows.all():
        raise DataError("A batch of pairs has to hold the rows of both answers of every pair; one answer is missing.")
    zeros = values.new_zeros(pairs)
    return zeros.index_add(0, pair[chosen], values[chosen]), zeros.index_add(0, pair[~chosen], values[~chosen])


def reward_metrics(chosen_reward: Tensor, rejected_reward: Tensor) -> TensorDict:
    """Return what implicit rewards [P] look like, as means over pairs; a tie counts half in the accuracy."""
    margin = (chosen_reward - rejected_reward).detach()
    return TensorDict(
        {
            "accuracy": ((margin.sign() + 1) / 2).mean(),
            "margin": margin.mean(),
            "chosen_reward": chosen_reward.detach().mean(),
            "rejected_reward": rejected_reward.detach().mean(),
        }
    )


def _pair_index(batch: TensorDictBase) -> Tensor:
    """Return the pair of each row, as an index from 0 to P - 1.  [B]"""
    index: Tensor = torch.unique(batch["pair"], return_inverse=True)[1]
    return index

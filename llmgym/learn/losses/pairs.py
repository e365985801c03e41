"""`PairLoss`: the base of all losses over pairs of answers."""

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from llmgym.errors import DataError
from llmgym.learn.losses.units import UnitLoss, row_log_ratios, sum_units


class PairLoss(UnitLoss):
    """The base of losses over pairs of a chosen and a rejected answer.

    The batch holds ``tokens`` and ``mask`` [B, T], ``pair`` [B] (rows with the same number
    are one pair, which a micro-batch never splits) and ``chosen`` [B] (to which of the
    pair's two answers a row belongs). Each pair counts the same.
    """

    unit = "pair"
    reads: tuple[str, ...] = ("pair", "chosen")


def log_ratios(log_probs: Tensor, batch: TensorDictBase) -> tuple[Tensor, Tensor]:
    r"""Return :math:`\log \pi(y|x) / \pi_\mathrm{ref}(y|x)` of every pair's chosen and rejected answer.

    Args:
        log_probs: The policy's.  [B, T]
        batch: ``mask`` and ``ref_log_probs`` [B, T], ``pair`` and ``chosen`` [B].

    Returns:
        Two tensors [P], in the order of the pairs' numbers. An answer without tokens has 0.
    """
    return by_answer(row_log_ratios(log_probs, batch), batch)


def by_answer(values: Tensor, batch: TensorDictBase) -> tuple[Tensor, Tensor]:
    """Sum values of rows [B] over each pair's chosen answer, and over its rejected one.  [P] each

    Raises:
        DataError: A pair lacks one of its answers: the batch was split between them.
    """
    pair, chosen = batch["pair"], batch["chosen"]
    if not all(sum_units(side.long(), pair).all() for side in (chosen, ~chosen)):
        raise DataError("A batch of pairs has to hold the rows of both answers of every pair; one answer is missing.")
    return sum_units(torch.where(chosen, values, 0.0), pair), sum_units(torch.where(chosen, 0.0, values), pair)


def answer_lengths(batch: TensorDictBase) -> tuple[Tensor, Tensor]:
    """Return how many tokens each pair's chosen answer has, and its rejected one, as float32.  [P] each"""
    return by_answer(batch["mask"].sum(dim=1).float(), batch)


def reward_metrics(chosen_reward: Tensor, rejected_reward: Tensor) -> TensorDict:
    """Return metrics of implicit rewards [P], as means over pairs; a tie counts half in the accuracy."""
    margin = (chosen_reward - rejected_reward).detach()
    return TensorDict(
        {
            "accuracy": ((margin.sign() + 1) / 2).mean(),
            "margin": margin.mean(),
            "chosen_reward": chosen_reward.detach().mean(),
            "rejected_reward": rejected_reward.detach().mean(),
        }
    )

r"""The loss of reward models: the log-likelihood of preferences under the model of Bradley and Terry (1952)."""

from typing import Any, ClassVar, Literal

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.objectives import LossModule

from llmgym.learn.reward_model import RewardModel


def bradley_terry(chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    r"""Return :math:`-\log \sigma(r_c - r_r - m)` of pairs of rewards (Llama 2, arXiv:2307.09288, equation 2).  [P]

    Args:
        chosen: Rewards of the better sides.  [P]
        rejected: Rewards of the worse sides.  [P]
        margin: By how much the first should be larger.  [P]
    """
    return -torch.nn.functional.logsigmoid(chosen - rejected - margin)


class BradleyTerryLoss(LossModule):
    r"""Bradley-Terry over pairs of conversations, with rewards that are drawn to be centred at zero.

    .. math:: L = \sum_p w_p \left(-\log \sigma(r_c - r_r - m) + \lambda (r_c + r_r)^2\right)

    The second term (Eisenstein et al., arXiv:2312.09244) takes away the freedom that
    preferences leave: they stay the same when all rewards of a task grow by a constant.

    Args:
        reward_model: What learns.
        center_coef: Weight of the second term.

    The batch is one of `RewardModel.collate`, the chosen side of each pair before the
    rejected one, with ``chosen`` [B] bool and, to ask for margins, ``margin`` [B], read from
    the chosen sides.
    """

    unit: ClassVar[Literal["pair"]] = "pair"

    def __init__(self, reward_model: RewardModel, *, center_coef: float = 0.0) -> None:
        super().__init__()
        self.reward_model = reward_model
        self.center_coef = center_coef

    def weights(self, batch: TensorDictBase) -> Tensor:
        """Give every pair the same share of the loss.  [B]"""
        return batch["chosen"].new_full(batch["chosen"].shape, 1.0, dtype=torch.float32) / max(1, self.count(batch))

    def count(self, batch: TensorDictBase) -> int:
        """Return the number of pairs."""
        return int(batch["chosen"].sum())

    def forward(self, tensordict: TensorDictBase) -> Any:
        """Return the losses, weighted and summed, and the metrics as means over pairs."""
        batch = tensordict
        rewards = self.reward_model(batch)  # [B]
        first = batch["chosen"]
        chosen, rejected = rewards[first], rewards[~first]  # [P]
        weight = (batch["weight"] if "weight" in batch else self.weights(batch))[first]
        margin = batch["margin"][first] if "margin" in batch else 0.0
        apart = (chosen - rejected).detach()
        out = {
            "loss_preference": (weight * bradley_terry(chosen, rejected, margin)).sum(),
            "accuracy": (apart > 0).float().mean(),
            "reward_margin": apart.mean(),
        }
        if self.center_coef:
            out["loss_center"] = self.center_coef * (weight * (chosen + rejected).square()).sum()
        return TensorDict(out)

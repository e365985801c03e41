r"""The loss of reward models: the log-likelihood of preferences under the model of Bradley and Terry (1952)."""

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from llmgym.learn.losses.base import LanguageModelLoss
from llmgym.learn.reward_model import RewardModel


def bradley_terry(chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    r"""Return :math:`-\log \sigma(r_c - r_r - m)` of pairs of rewards (Llama 2, arXiv:2307.09288, equation 2).  [P]

    Args:
        chosen: Rewards of the better sides.  [P]
        rejected: Rewards of the worse sides.  [P]
        margin: By how much the first should be larger.  [P]
    """
    return -torch.nn.functional.logsigmoid(chosen - rejected - margin)


class BradleyTerryLoss(LanguageModelLoss):
    r"""Bradley-Terry over pairs of conversations, with rewards that are drawn to be centred at zero.

    .. math:: L = \sum_p w_p \left(-\log \sigma(r_c - r_r - m) + \lambda (r_c + r_r)^2\right)

    The second term (Eisenstein et al., arXiv:2312.09244) takes away the freedom that
    preferences leave: they stay the same when all rewards of a task grow by a constant.

    Args:
        reward_model: What learns.
        center_coef: Weight of the second term.

    The batch is one of `RewardModel.collate` with ``pair`` [B], the chosen side of each pair
    before the rejected one, ``chosen`` [B] bool and, to ask for margins, ``margin`` [B], read
    from the chosen sides. Every pair counts the same.
    """

    unit = "pair"
    reads = ("pair", "chosen")

    def __init__(self, reward_model: RewardModel, *, center_coef: float = 0.0) -> None:
        super().__init__()
        self.reward_model = reward_model
        self.center_coef = center_coef

    def forward(self, tensordict: TensorDictBase) -> Any:
        """Return the losses, weighted and summed, and the metrics as means over pairs."""
        batch = tensordict
        first = batch["chosen"]
        weight = self.weight_of(batch)[first]  # [P]
        rewards = self.reward_model(batch)  # [B]
        chosen, rejected = rewards[first], rewards[~first]  # [P]
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

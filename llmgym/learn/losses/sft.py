r"""Supervised fine-tuning: the cross-entropy of demonstrations."""

import torch
from tensordict import TensorDict, TensorDictBase

from llmgym.learn.losses.base import LanguageModelLoss
from llmgym.learn.policy import Policy


class SFTLoss(LanguageModelLoss):
    r"""The mean cross-entropy of the assistant's tokens, as a TorchRL module.

    .. math:: L = -\sum_t w_t \log \pi(a_t)

    TorchRL's own `SFTLoss` reads conversations of its own format; this one reads batches of
    tokens, in which ``mask`` [B, T] says which are the assistant's.

    Args:
        policy: What learns.

    The metric ``probability`` is the mean probability of a token.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.actor_network = policy

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """Return ``loss_sft``, the weighted sum over tokens, and the metric."""
        mask = tensordict["mask"]
        log_probs = self.actor_network.get_dist(tensordict).log_prob(tensordict["tokens"])  # [B, T]
        tensordict["policy_log_probs"] = log_probs.detach()
        probability = torch.where(mask, log_probs.detach().exp(), 0.0).sum() / mask.sum().clamp(min=1)
        return TensorDict({"loss_sft": -(self.weight_of(tensordict) * log_probs).sum(), "probability": probability})

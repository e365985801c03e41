"""`ClippedPolicyLoss`: TorchRL's GRPO loss over the sampled tokens of multi-turn trajectories."""

from typing import Any, Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.objectives.llm import GRPOLoss

from llmgym.learn.aggregation import Aggregation, token_weights
from llmgym.learn.losses.base import LanguageModelLoss
from llmgym.learn.policy import Policy


class ClippedPolicyLoss(GRPOLoss, LanguageModelLoss):
    r"""The clipped surrogate of PPO, per sampled token (arXiv:1707.06347, equation 7).

    .. math:: L = -\sum_t w_t \min(\rho_t A_t,\ \mathrm{clip}(\rho_t, 1-\epsilon_-, 1+\epsilon_+) A_t)
              + \beta \sum_t w_t (e^{d_t} - d_t - 1)

    with :math:`\rho_t = \pi(a_t) / \pi_\mathrm{old}(a_t)` and :math:`d_t = \log
    \pi_\mathrm{ref}(a_t) - \log \pi(a_t)` (the k3 estimator). The old policy is the one that
    sampled, or the training policy before the update, where the mismatch between the two
    is corrected; see `llmgym.learn.mismatch`.

    TorchRL 0.14 averages the KL term and two of its metrics over prompts and padding too,
    so that they shrink as sequences grow. Here every term is weighted by token, and every
    metric is a mean over sampled tokens.

    Args:
        policy: The actor.
        clip_epsilon: How far below and above 1 the ratio counts.
        kl_coef: Weight of the KL divergence to the reference policy; 0 for none.
        aggregation: What counts the same in the loss.
        old_log_probs: The key of the old policy's log-probabilities.

    The batch holds ``tokens``, ``mask``, ``log_probs`` and ``advantage``, all [B, T], and
    ``ref_log_probs`` [B, T] where `kl_coef` is not 0. Where the loss is to be corrected for
    who sampled, it also holds ``importance_weight`` [B, T].
    """

    def __init__(
        self,
        policy: Policy,
        *,
        clip_epsilon: tuple[float, float] = (0.2, 0.2),
        kl_coef: float = 0.0,
        aggregation: Aggregation = "token-mean",
        old_log_probs: Literal["log_probs", "old_log_probs"] = "log_probs",
    ) -> None:
        super().__init__(
            policy,
            clip_epsilon=clip_epsilon,
            aggregation="none",
            entropy_bonus=False,
            kl_to_ref_coeff=kl_coef or None,
        )
        self.weighting: Aggregation = aggregation  # not `aggregation`: that is TorchRL's
        self.set_keys(
            action="tokens", sample_log_prob=old_log_probs, ref_log_probs="ref_log_probs", advantage="advantage"
        )

    def weights(self, batch: TensorDictBase) -> Tensor:
        """Return how much each token counts in a whole optimiser batch.  [B, T]"""
        weight = token_weights(batch["mask"], self.weighting, batch["episode"])
        return weight * batch["importance_weight"] if "importance_weight" in batch else weight

    def forward(self, tensordict: TensorDictBase) -> Any:
        """Return the losses, weighted and summed, and the metrics as means over sampled tokens."""
        weight = self.weight_of(tensordict)[..., None]  # [B, T, 1]
        log_probs = torch.zeros_like(tensordict["log_probs"])  # filled below
        inner = tensordict.copy().set("advantage", tensordict["advantage"][..., None])
        out = super().forward(inner.set("policy_log_probs", log_probs))
        tensordict["policy_log_probs"] = log_probs
        out.loss_objective = (out.loss_objective * weight).sum()
        if self.kl_to_ref_coeff:
            out.loss_kl_to_ref = (out.loss_kl_to_ref * weight[..., 0]).sum()
        mask = tensordict["mask"]
        everywhere_to_sampled = mask.numel() / mask.sum().clamp(min=1)
        out.clip_fraction = out.clip_fraction * everywhere_to_sampled
        out.kl_approx = out.kl_approx * everywhere_to_sampled
        return out

    def _log_weight(self, tensordict: TensorDictBase, *args: Any, **kwargs: Any) -> Any:
        """Keep the policy's log-probabilities, which TorchRL drops from its copy of the batch."""
        result = super()._log_weight(tensordict, *args, **kwargs)
        tensordict["policy_log_probs"].copy_(tensordict["_cur_log_prob"].detach())
        return result

    def _kl_to_ref(self, tensordict: TensorDictBase, *args: Any, mask: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return the KL terms by token [B, T], and their mean over sampled tokens."""
        log_prob = tensordict["_cur_log_prob"]
        difference = torch.where(mask, tensordict["ref_log_probs"] - log_prob, 0.0)
        kl = difference.expm1() - difference
        return self.kl_to_ref_coeff * kl, kl.sum() / mask.sum().clamp(min=1)

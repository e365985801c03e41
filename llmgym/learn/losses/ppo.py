"""`PPOLoss`: TorchRL's clipped PPO loss, actor and critic, over the sampled tokens of multi-turn trajectories."""

import math
from typing import Any, Literal

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torchrl.objectives import ClipPPOLoss

from llmgym.config.choices import Aggregation, KLEstimator
from llmgym.learn.aggregation import corrected_weights
from llmgym.learn.critic import Critic
from llmgym.learn.kl import kl_estimate
from llmgym.learn.losses.base import LanguageModelLoss
from llmgym.learn.losses.policy_gradient import clip_fractions
from llmgym.learn.policy import Policy


class PPOLoss(ClipPPOLoss, LanguageModelLoss):
    r"""Proximal Policy Optimisation with a critic (arXiv:1707.06347, equation 9), per sampled token.

    .. math:: L = -\sum_t w_t \min(\rho_t A_t,\ \mathrm{clip}(\rho_t, 1-\epsilon_-, 1+\epsilon_+) A_t)
              + \frac{c}{2} \sum_t w_t \max\left((V_t - R_t)^2,\
              (V^\mathrm{old}_t + \mathrm{clip}(V_t - V^\mathrm{old}_t, -\epsilon_V, \epsilon_V) - R_t)^2\right)
              + \beta \sum_t w_t D_t - h \sum_t w_t H_t

    with :math:`\rho_t` the ratio of the policy to the old one, :math:`V_t` the critic's value of
    the state that token t was sampled in, :math:`R_t` the return it should have foreseen,
    :math:`D_t` an estimate of the divergence from the reference policy and :math:`H_t` the
    policy's entropy.

    TorchRL 0.14 averages its metrics over prompts and padding, and its explained variance over
    the rows of each column. Here every term is weighted per token, and every metric is a mean
    over sampled tokens.

    Args:
        policy: The actor.
        critic: Adds ``state_value`` [B, T, 1] to a batch, 0 where nothing was sampled, as
            `llmgym.learn.critic.Critic` does.
            If it is on the policy's own trunk, one forward pass serves both.
        clip_epsilon: How far below and above 1 the ratio counts.
        clip_value: How far from the old value the new one counts; None for any distance.
        value_coef: c in the equation.
        entropy_coef: h in the equation; 0 for none.
        kl_coef: beta in the equation; 0 for none. It may be set to another value at any time.
        kl_estimator: Of the divergence from the reference.
        aggregation: What counts the same in the loss.
        loss_scale_factor: The constant of ``seq-mean-token-sum-norm``.
        old_log_probs: The key of the old policy's log-probabilities.

    The batch holds ``tokens``, ``mask``, ``log_probs``, ``advantage``, ``value_target`` and, where
    values are clipped, ``state_value`` (the old ones), all [B, T], ``episode`` and ``prompt_length``
    [B], and ``ref_log_probs`` [B, T] where `kl_coef` is not 0. Where the loss is to be corrected
    for who sampled, it also holds ``importance_weight`` [B, T].
    """

    reads = ("advantage", "value_target")

    def __init__(
        self,
        policy: Policy,
        critic: nn.Module,
        *,
        clip_epsilon: tuple[float, float] = (0.2, 0.2),
        clip_value: float | None = 0.2,
        value_coef: float = 1.0,
        entropy_coef: float = 0.0,
        kl_coef: float = 0.0,
        kl_estimator: KLEstimator = "k3",
        aggregation: Aggregation = "token-mean",
        loss_scale_factor: float = 1.0,
        old_log_probs: Literal["log_probs", "old_log_probs"] = "log_probs",
    ) -> None:
        super().__init__(
            policy,
            critic,
            clip_epsilon=clip_epsilon,
            clip_value=clip_value,
            critic_coeff=value_coef / 2,
            loss_critic_type="l2",
            entropy_bonus=entropy_coef > 0,
            entropy_coeff=entropy_coef,
            log_explained_variance=False,
            functional=False,
            reduction="none",
        )
        self.kl_coef, self.kl_estimator = kl_coef, kl_estimator
        self.aggregation, self.loss_scale_factor = aggregation, loss_scale_factor
        self.loss_mask_key = "mask"
        self._old_log_probs, self._clip_range = old_log_probs, clip_epsilon
        self.set_keys(action="tokens", sample_log_prob="old_log_probs")
        self._one_pass = isinstance(critic, Critic) and critic.trunk is policy.trunk

    def weights(self, batch: TensorDictBase) -> Tensor:
        """Return how much each token counts in a whole optimiser batch.  [B, T]"""
        return corrected_weights(batch, self.aggregation, self.loss_scale_factor)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Return the losses, weighted and summed, and the metrics as means over sampled tokens."""
        mask, weight = tensordict["mask"], self.weight_of(tensordict)
        log_probs = torch.zeros_like(tensordict["log_probs"])  # filled by `_get_cur_log_prob`
        entropies = log_probs.masked_fill(mask, math.nan)  # filled there, too, if the distributions have some
        inner = tensordict.copy().set("policy_log_probs", log_probs).set("policy_entropies", entropies)
        inner["old_log_probs"] = tensordict[self._old_log_probs].masked_fill(~mask, 0.0)
        for key in ("advantage", "value_target", "state_value"):
            if key in tensordict:
                inner[key] = tensordict[key].masked_fill(~mask, 0.0)[..., None]
        terms = super().forward(inner)
        tensordict["policy_log_probs"] = log_probs.detach()
        tensordict["policy_entropies"] = entropies
        out = {key: (terms[key] * weight).sum() for key in ("loss_objective", "loss_critic")}
        if self.entropy_bonus:
            out["loss_entropy"] = (terms["loss_entropy"] * weight).sum()
        if self.kl_coef:
            log_ratio = (log_probs - tensordict["ref_log_probs"]).masked_fill(~mask, 0.0)
            kl = kl_estimate(log_ratio, self.kl_estimator)
            out["loss_kl_to_ref"] = self.kl_coef * (kl * weight).sum()
            out["kl_to_ref"] = kl.detach().sum() / mask.sum().clamp(min=1)
        everywhere_to_sampled = mask.numel() / mask.sum().clamp(min=1)
        for key in ("kl_approx", "value_clip_fraction"):
            if key in terms:
                out[key] = terms[key] * everywhere_to_sampled
        log_ratio = (log_probs.detach() - inner["old_log_probs"]).masked_fill(~mask, 0.0)
        out |= clip_fractions(log_ratio, inner["advantage"][..., 0], mask, self._clip_range)
        return TensorDict(out)

    def _set_in_keys(self) -> None:
        """Name what `forward` reads: TorchRL would ask the actor, which is no TensorDictModule."""
        self._in_keys = ["tokens", "mask", "prompt_length", "advantage", "value_target", self._old_log_probs]

    def _get_cur_log_prob(self, tensordict: TensorDictBase, *args: Any, **kwargs: Any) -> Any:
        """Keep what TorchRL drops: the policy's log-probabilities, and the states if the critic reads them too."""
        result = super()._get_cur_log_prob(tensordict, *args, **kwargs)
        log_prob, dist, _ = result
        tensordict["policy_log_probs"].copy_(log_prob)
        entropies = getattr(dist, "entropies", None)  # distributions of another policy may have none
        if entropies is not None:
            tensordict["policy_entropies"].copy_(entropies)
        if self._one_pass:
            tensordict.set_non_tensor("states", dist.states)
        return result

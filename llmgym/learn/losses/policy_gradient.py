"""`PolicyGradientLoss`: the base of losses that weigh the likelihood of sampled tokens by an advantage."""

from abc import abstractmethod
from typing import Literal

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from llmgym.config.choices import Aggregation, KLEstimator, Level
from llmgym.learn.aggregation import corrected_weights, sum_by_episode
from llmgym.learn.kl import kl_estimate
from llmgym.learn.losses.base import LanguageModelLoss
from llmgym.learn.mismatch import effective_share
from llmgym.learn.policy import Policy


def sequence_log_ratio(log_ratio: Tensor, mask: Tensor, episode: Tensor) -> Tensor:
    r"""Return for each token the log-ratio of its whole episode, by length (GSPO, arXiv:2507.18071, eq. 7 and 14).

    .. math:: s = \left(\frac{\pi(y)}{\pi_\mathrm{old}(y)}\right)^{1 / |y|}, \qquad
        \log s_t = \mathrm{sg}[\log s] + \log \pi(a_t) - \mathrm{sg}[\log \pi(a_t)]

    The value is the episode's, the gradient the token's own, so that advantages and weights
    may differ between the tokens of an episode. Where they do not, the gradient of the sum
    over the episode is that of the ratio itself.

    Args:
        log_ratio: log pi - log pi_old, 0 where nothing was sampled.  [B, T]
        mask: The token was sampled.  [B, T]
        episode: The episode of each row; all rows of an episode have to be there.  [B]

    Returns:
        Log-ratios.  [B, T]
    """
    length = sum_by_episode(mask.sum(dim=1), episode).clamp(min=1)
    mean = sum_by_episode(log_ratio.detach().sum(dim=1), episode) / length  # [B]
    return mean[:, None] + log_ratio - log_ratio.detach()


@torch.no_grad()
def clip_fractions(
    log_ratio: Tensor, advantage: Tensor, mask: Tensor, clip_epsilon: tuple[float, float]
) -> dict[str, Tensor]:
    """Return how many of the sampled tokens have a ratio that clipping is about, as shares of them.

    Args:
        log_ratio: Of the policy to the old one.  [B, T]
        advantage: [B, T]
        mask: The token was sampled.  [B, T]
        clip_epsilon: How far below and above 1 the ratio counts.

    Returns:
        ``clip_fraction``, those beyond the bounds, and ``clip_fraction/low`` and ``clip_fraction/high``, those beyond
        each; ``clipped/low`` and ``clipped/high``, those of them to which a clipped objective gives no gradient: with a
        negative advantage below, with a positive one above.
    """
    low, high = clip_epsilon
    ratio, sampled = log_ratio.exp(), mask.sum().clamp(min=1)
    below, above = (ratio < 1 - low) & mask, (ratio > 1 + high) & mask
    found = {
        "clip_fraction": below | above,
        "clip_fraction/low": below,
        "clip_fraction/high": above,
        "clipped/low": below & (advantage < 0),
        "clipped/high": above & (advantage > 0),
    }
    return {name: those.sum() / sampled for name, those in found.items()}


class PolicyGradientLoss(LanguageModelLoss):
    r"""A surrogate whose gradient improves the policy, and a divergence that holds it back.

    .. math:: L = \sum_t w_t\, \ell(\pi(a_t), \rho_t, A_t) + \beta \sum_t w_t D_t

    with :math:`\rho_t = \pi(a_t) / \pi_\mathrm{old}(a_t)`, or the ratio of the whole episode
    (`sequence_log_ratio`), and :math:`D_t` an estimate of the divergence from the reference
    (`llmgym.learn.kl`). The old policy is the one that sampled, or the training policy before
    the update, where the mismatch between the two is corrected; see `llmgym.learn.mismatch`.

    Args:
        policy: The actor.
        clip_epsilon: How far below and above 1 the ratio counts; 1 below is no bound.
        ratio: Whether each token has a ratio of its own, or the tokens of an episode one together.
        kl_coef: Weight of the KL divergence to the reference policy; 0 for none.
        kl_estimator: Its estimator.
        aggregation: What counts the same in the loss.
        loss_scale_factor: The constant of ``seq-mean-token-sum-norm``.
        old_log_probs: The key of the old policy's log-probabilities.

    The batch holds ``tokens``, ``mask``, ``log_probs`` and ``advantage``, all [B, T], ``episode`` and
    ``prompt_length`` [B], and ``ref_log_probs`` [B, T] where `kl_coef` is not 0. Where the loss is to
    be corrected for who sampled, it also holds ``importance_weight`` [B, T].

    TorchRL 0.14's `GRPOLoss` averages its KL term and two of its metrics over prompts and
    padding too, so that they shrink as sequences grow, and its `CISPOLoss` has no gradient
    where it clips. Here every term is weighted per token, and every metric is a mean over
    sampled tokens; ``ESS``, the effective sample size of the ratios, is one of a micro-batch.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        clip_epsilon: tuple[float, float] = (0.2, 0.2),
        ratio: Level = "token",
        kl_coef: float = 0.0,
        kl_estimator: KLEstimator = "k3",
        aggregation: Aggregation = "token-mean",
        loss_scale_factor: float = 1.0,
        old_log_probs: Literal["log_probs", "old_log_probs"] = "log_probs",
    ) -> None:
        super().__init__()
        self.actor_network = policy
        self.clip_epsilon = clip_epsilon
        self.unit = "row" if ratio == "token" else "episode"
        self.reads = ("advantage", "ref_log_probs") if kl_coef else ("advantage",)
        self.kl_coef, self.kl_estimator = kl_coef, kl_estimator
        self.aggregation, self.loss_scale_factor = aggregation, loss_scale_factor
        self.old_log_probs = old_log_probs

    @abstractmethod
    def surrogate(self, log_probs: Tensor, log_ratio: Tensor, advantage: Tensor) -> Tensor:
        """Return the loss of each token.  [B, T]"""

    def weights(self, batch: TensorDictBase) -> Tensor:
        """Return how much each token counts in a whole optimiser batch.  [B, T]"""
        return corrected_weights(batch, self.aggregation, self.loss_scale_factor)

    def count(self, batch: TensorDictBase) -> int:
        """Return how many tokens were sampled."""
        return int(batch["mask"].sum())

    def teaches(self, batch: TensorDictBase) -> Tensor:
        """Tell which rows, or with a ratio per episode which episodes' rows, have an advantage or divergence.  [B]"""
        teaches: Tensor = batch["advantage"].any(dim=1) | (self.kl_coef > 0)
        return sum_by_episode(teaches.int(), batch["episode"]) > 0 if self.unit == "episode" else teaches

    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """Return the losses, weighted and summed, and the metrics as means over sampled tokens."""
        mask, weight = tensordict["mask"], self.weight_of(tensordict)
        dist = self.actor_network.get_dist(tensordict)
        log_probs = dist.log_prob(tensordict["tokens"])  # [B, T]
        tensordict["policy_log_probs"] = log_probs.detach()
        entropies = getattr(dist, "entropies", None)  # distributions of another policy may have none
        if entropies is not None:
            tensordict["policy_entropies"] = entropies
        token_log_ratio = (log_probs - tensordict[self.old_log_probs]).masked_fill(~mask, 0.0)
        log_ratio = token_log_ratio
        if self.unit == "episode":
            log_ratio = sequence_log_ratio(log_ratio, mask, tensordict["episode"])
        advantage = tensordict["advantage"].masked_fill(~mask, 0.0)
        output = TensorDict({"loss_objective": (weight * self.surrogate(log_probs, log_ratio, advantage)).sum()})
        sampled = mask.sum().clamp(min=1)
        with torch.no_grad():
            output.update(clip_fractions(log_ratio, advantage, mask, self.clip_epsilon))
            if self.unit == "episode":  # it is episodes that are clipped, not tokens
                del output["clipped/low"], output["clipped/high"]
            output["kl_approx"] = -token_log_ratio.sum() / sampled
            output["ESS"] = effective_share(log_ratio[mask])
        if self.kl_coef:
            log_ratio_to_ref = (log_probs - tensordict["ref_log_probs"]).masked_fill(~mask, 0.0)
            kl = kl_estimate(log_ratio_to_ref, self.kl_estimator)
            output["loss_kl_to_ref"] = self.kl_coef * (weight * kl).sum()
            output["kl_to_ref"] = kl.detach().sum() / sampled
        return output

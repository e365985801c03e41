r"""The mismatch between the policy that sampled and the policy that learns: measured always, corrected on request.

Tokens come from :math:`\mu`, the distribution that the engine sampled from; the learner
differentiates :math:`\pi`, its own distribution under the weights before the update. The
two differ by number formats and kernels, by weights that are out of date, and by top-p and
top-k, which only :math:`\mu` knows. With :math:`s` the set of sampled tokens,

.. math:: \rho_t = \pi(a_t) / \mu(a_t), \qquad \rho = \prod_{t \in s} \rho_t

the expectation of :math:`\rho\,f` under :math:`\mu` is that of :math:`f` under
:math:`\pi`. So each token's loss is multiplied by a weight that is constant in the
gradient, and PPO's own ratio is then to :math:`\pi`, "old", and no longer to :math:`\mu`:

.. math:: L = \sum_t w_t\, \ell\left(\frac{\pi_\theta(a_t)}{\pi(a_t)}\right), \qquad
    w_t^\mathrm{truncate} = \min(r_t, C), \qquad
    w_t^\mathrm{mask} = r_t\, \mathbb{1}[1/C \le r_t \le C]

- **level**: ``token`` uses :math:`r_t = \rho_t`, ``sequence`` uses :math:`r_t = \rho` over
  all sampled tokens of the episode, of every turn. The second is exact where nothing is
  truncated; the first ignores that earlier tokens were sampled by :math:`\mu` too, and has
  far less variance.
- **truncate** is truncated importance sampling (Ionides 2008; for language models Yao et al.
  2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training").
- **mask** leaves tokens, or episodes, that are too far off out of the loss (IcePop, Zhao et al.
  2025, per token; Liu, Li et al. 2025, "When Speed Kills Stability", per sequence). What is left
  out has weight 0 and still counts in the loss's normaliser: leaving a token out makes no
  other token count more.

With top-p or top-k, :math:`\mu` never samples what lies outside its support, and no weight
brings that back: the corrected gradient is that of :math:`\pi` restricted to the support.
"""

import math
from typing import Literal

from tensordict import TensorDict
from torch import Tensor

from llmgym.config.choices import Level
from llmgym.learn.aggregation import sum_by_episode
from llmgym.learn.kl import kl_estimate


def importance_weights(
    log_probs: Tensor, batch: TensorDict, correction: Literal["truncate", "mask"], level: Level, threshold: float
) -> tuple[Tensor, float]:
    """Return a weight per sampled token: its probability under the training policy by that under the sampling policy.

    Args:
        log_probs: Of the training policy before the update.  [B, T]
        batch: ``log_probs`` [B, T] of the sampling policy, ``mask`` [B, T] and ``episode`` [B].
        correction: What to do with weights beyond the threshold.
        level: Whether each token or each episode has a weight.
        threshold: C in the equations, at least 1.

    Returns:
        The weights, 0 where nothing was sampled [B, T], and the share of sampled tokens that
        were truncated or left out.
    """
    log_ratio, mask, bound = _log_ratio(log_probs, batch), batch["mask"], math.log(threshold)
    if level == "sequence":
        log_ratio = sum_by_episode(log_ratio.sum(dim=1), batch["episode"])[:, None].expand_as(log_ratio)
    if correction == "truncate":
        beyond = log_ratio > bound
        weights = log_ratio.clamp(max=bound).exp()
    else:
        beyond = log_ratio.abs() > bound
        weights = log_ratio.masked_fill(beyond, -math.inf).exp()
    return weights * mask, float((beyond & mask).sum() / mask.sum().clamp(min=1))


def measure(log_probs: Tensor, batch: TensorDict, *, full_support: bool = True) -> dict[str, float]:
    """Return how far the training policy is from the one that sampled; NaN where nothing was sampled.

    Tokens that no policy sampled, but a demonstration has, have a log-probability of NaN and are left out, and
    so are those of rows that the learner did not run.

    Args:
        log_probs: Of the training policy before the update.  [B, T]
        batch: As for `importance_weights`.
        full_support: Whether the sampling policy may draw every token, as it may without top-p and top-k.

    Returns:
        All over sampled tokens, each under the prefix ``mismatch/``:

        - ``log_ratio_mean``: mean of log pi - log mu; minus it is the k1 estimate of KL(mu || pi)
        - ``log_ratio_abs``: mean absolute value of it
        - ``log_ratio_max``: the largest absolute value of it
        - ``kl``: an estimate of KL(mu || pi), in nats per token: k3, which varies least, or k1
          without full support, where k3 lacks the mass that mu leaves out
        - ``ess``: effective sample size of the tokens' weights, as a share of the tokens
        - ``ess_sequence``: the same of the episodes' weights, as a share of the episodes
    """
    batch = batch.copy().set("mask", batch["mask"] & batch["log_probs"].isfinite() & log_probs.isfinite())
    log_ratio, mask = _log_ratio(log_probs, batch).double(), batch["mask"]
    by_token = log_ratio[mask]  # [N]
    if not len(by_token):
        return dict.fromkeys((f"mismatch/{name}" for name in _METRICS), math.nan)
    by_episode = sum_by_episode(log_ratio.sum(dim=1), batch["episode"])
    first = batch["episode"].diff(prepend=batch["episode"][:1] - 1) != 0
    sampled = sum_by_episode(mask.sum(dim=1), batch["episode"]) > 0
    values = (
        by_token.mean(),
        by_token.abs().mean(),
        by_token.abs().max(),
        kl_estimate(-by_token, "k3" if full_support else "k1").mean(),
        effective_share(by_token),
        effective_share(by_episode[first & sampled]),
    )
    return {f"mismatch/{name}": float(value) for name, value in zip(_METRICS, values, strict=True)}


_METRICS = ("log_ratio_mean", "log_ratio_abs", "log_ratio_max", "kl", "ess", "ess_sequence")


def _log_ratio(log_probs: Tensor, batch: TensorDict) -> Tensor:
    """Return log pi - log mu where a token was sampled, 0 elsewhere.  [B, T]"""
    log_ratio: Tensor = (log_probs - batch["log_probs"]).masked_fill(~batch["mask"], 0.0)
    return log_ratio


def effective_share(log_weights: Tensor) -> Tensor:
    """Return (sum w)^2 / (N sum w^2), Kish's effective sample size divided by N.  [N] -> []"""
    share: Tensor = (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp() / len(log_weights)
    return share

r"""KL divergences estimated from sampled tokens, and the coefficients that weigh them.

With :math:`r_t = \log \pi(a_t) - \log \pi_\mathrm{ref}(a_t)` of tokens that :math:`\pi` sampled
(J. Schulman, "Approximating KL divergence", 2020):

.. math:: k_1 = r, \qquad k_2 = r^2 / 2, \qquad k_3 = e^{-r} - 1 + r

:math:`k_1` and :math:`k_3` have the mean :math:`D_\mathrm{KL}(\pi \| \pi_\mathrm{ref})`, and :math:`k_3` is
never negative; :math:`k_2` is biased a little. Their gradients are another matter, because
the tokens, too, depend on the policy:

===========  ======================================  ===========================================================
as a loss    gradient of a token's term              its expectation, on policy, given what comes before the token
===========  ======================================  ===========================================================
``k1``       :math:`\nabla \log \pi`                 0: noise, and no penalty at all
``k2``       :math:`r \nabla \log \pi`               :math:`\nabla D_\mathrm{KL}(\pi \| \pi_\mathrm{ref})` of the token
``k3``       :math:`(1 - e^{-r}) \nabla \log \pi`    :math:`\nabla D_\mathrm{KL}(\pi_\mathrm{ref} \| \pi)` of the token:
                                                     the other direction, the same to first order
``k1+``      that of ``k2``                          that of ``k2``, with the value of ``k1``
``k3+``      that of ``k2``                          that of ``k2``, with the value of ``k3``
===========  ======================================  ===========================================================

None of these is the gradient of the divergence of whole answers, in which a token also pays
for where it leads:

.. math:: \nabla D_\mathrm{KL}(\pi \| \pi_\mathrm{ref})
    = \mathbb{E}\left[\sum_t \nabla \log \pi(a_t) \sum_{u \ge t} r_u\right]

That is what ``k1`` as a penalty in each token's reward gives, with rewards to come summed up:
``ppo`` with ``kl_in reward``, ``gamma 1`` and ``lam 1``. Use it for the exact optimum of
reward minus :math:`\beta` KL, :math:`\pi^* \propto \pi_\mathrm{ref}\, e^{R/\beta}`. In the loss
the estimators hold each token to its reference and no more; after a first token that leads to a
hard choice they may settle far from that optimum: in an example of two tokens (tests/learn/test_kl.py)
``k2`` in the loss ends with a probability of .853 where the optimum has .348, and ``k1`` in the
reward with .348.

GRPO's paper uses ``k3`` in the loss (arXiv:2402.03300, equation 4).
"""

from torch import Tensor

from llmgym.config.choices import KLEstimator
from llmgym.errors import ConfigError


def kl_estimate(log_ratio: Tensor, estimator: KLEstimator) -> Tensor:
    """Return an estimate of KL(policy || reference) for each token, in nats, with its gradient.

    Args:
        log_ratio: log-probability under the policy that sampled minus that under the
            reference, of any shape.
        estimator: Which; see the module.

    Returns:
        The estimates, in the same shape.
    """
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return 0.5 * log_ratio**2
    if estimator == "k3":
        return (-log_ratio).expm1() + log_ratio
    value, slope = kl_estimate(log_ratio.detach(), "k1" if estimator == "k1+" else "k3"), 0.5 * log_ratio**2
    return value + (slope - slope.detach())


class FixedKL:
    """A constant weight of a KL divergence.

    Args:
        coefficient: Weight of the divergence.
    """

    def __init__(self, coefficient: float) -> None:
        self.coefficient = coefficient

    def update(self, kl: float, episodes: int) -> None:
        """Do nothing: the coefficient is constant."""


class AdaptiveKL:
    r"""A weight of a KL divergence that steers it to a target (Ziegler et al., arXiv:1909.08593, section 2.2).

    .. math:: \beta \leftarrow \beta \left(1 + \min\left(\frac{n}{h}, 1\right)
        \mathrm{clip}\left(\frac{D - D_\mathrm{target}}{D_\mathrm{target}}, -0.2, 0.2\right)\right)

    for a divergence D measured over n episodes.

    Args:
        coefficient: Weight of the divergence at the start.
        target: The divergence wanted, in the unit in which it is measured: per token or per episode.
        horizon: h, in episodes: a smaller one steers faster, but no step changes the coefficient by more than a fifth.

    Raises:
        ConfigError: Target or horizon is not above 0.
    """

    def __init__(self, coefficient: float, target: float, horizon: float) -> None:
        if not (target > 0 and horizon > 0):
            raise ConfigError(
                f"An adaptive KL coefficient: expected target and horizon above 0, got {target}, {horizon}."
            )
        self.coefficient, self.target, self.horizon = coefficient, target, horizon

    def update(self, kl: float, episodes: int) -> None:
        """Raise the coefficient if the divergence is above the target, lower it if below.

        Args:
            kl: The divergence measured.
            episodes: Over how many episodes.
        """
        if not episodes:
            return
        error = min(0.2, max(-0.2, kl / self.target - 1))
        self.coefficient *= 1 + error * min(1.0, episodes / self.horizon)


def kl_controller(coefficient: float, target: float | None, horizon: int) -> FixedKL | AdaptiveKL:
    """Return the weight of a KL divergence: adaptive if there is a target, else constant."""
    return FixedKL(coefficient) if target is None else AdaptiveKL(coefficient, target, horizon)

"""KL estimators: their values, the gradients they have in expectation, and the coefficients."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from llmgym.config.choices import KLEstimator
from llmgym.errors import ConfigError
from llmgym.learn.advantages import gae
from llmgym.learn.kl import AdaptiveKL, FixedKL, kl_estimate
from llmgym.learn.losses import CISPOLoss, ClippedPolicyLoss

POLICY = torch.tensor([0.5, -1.0, 0.25], dtype=torch.float64)  # logits over three actions
REFERENCE = torch.tensor([-0.5, 0.75, 0.0], dtype=torch.float64).log_softmax(0)


def bandit() -> tuple[torch.Tensor, torch.Tensor]:
    logits = POLICY.clone().requires_grad_()
    return logits, logits.log_softmax(0)


def gradient(value: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(value, logits)[0]


def forward_kl() -> torch.Tensor:
    """The gradient of KL(policy || reference), all three actions summed up."""
    logits, log_probs = bandit()
    return gradient((log_probs.exp() * (log_probs - REFERENCE)).sum(), logits)


@pytest.mark.parametrize(("estimator", "value"), [("k1", 0.5), ("k2", 0.125), ("k3", 0.106531)])
def test_values_at_a_log_ratio_of_one_half(estimator: KLEstimator, value: float) -> None:
    assert float(kl_estimate(torch.tensor(0.5), estimator)) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("estimator", ["k1", "k3", "k1+", "k3+"])
def test_in_expectation_the_value_is_the_divergence(estimator: KLEstimator) -> None:
    _, log_probs = bandit()
    expected = (log_probs.exp() * (log_probs - REFERENCE)).sum()
    found = (log_probs.exp() * kl_estimate(log_probs - REFERENCE, estimator)).sum()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("estimator", ["k2", "k1+", "k3+"])
def test_the_expected_gradient_of_a_loss_is_that_of_the_divergence(estimator: KLEstimator) -> None:
    logits, log_probs = bandit()
    loss = (log_probs.exp().detach() * kl_estimate(log_probs - REFERENCE, estimator)).sum()
    torch.testing.assert_close(gradient(loss, logits), forward_kl())


def test_the_expected_gradient_of_k1_as_a_loss_is_zero() -> None:
    logits, log_probs = bandit()
    loss = (log_probs.exp().detach() * kl_estimate(log_probs - REFERENCE, "k1")).sum()
    torch.testing.assert_close(gradient(loss, logits), torch.zeros(3, dtype=torch.float64))


# Answers of two tokens, all four of them summed up: what a divergence per token, in the loss, leaves out.

FIRST_REFERENCE = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
SECOND_REFERENCE = torch.tensor([[0.02, 0.98], [0.5, 0.5]], dtype=torch.float64).log()  # by the first token
REWARD = torch.tensor([5.0, 0.0, 2.0, 2.0], dtype=torch.float64)  # of 00, 01, 10, 11
OPTIMUM = (FIRST_REFERENCE[:, None] + SECOND_REFERENCE).flatten().add(REWARD).softmax(0)  # beta is 1


def log_probs_of_answers(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The log-probability of each token of each answer.  [4, 2]"""
    return torch.stack([first.repeat_interleave(2), second.flatten()], dim=1)


def settle(penalised: str) -> torch.Tensor:
    """Follow the exact expected policy gradient to its end; return the probability of each answer."""
    first, second = (torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in ((2,), (2, 2)))
    reference = log_probs_of_answers(FIRST_REFERENCE, SECOND_REFERENCE)
    optimiser = torch.optim.SGD([first, second], lr=0.3)
    for _ in range(3000):
        log_probs = log_probs_of_answers(first.log_softmax(0), second.log_softmax(1))
        log_ratio = log_probs - reference
        probability = log_probs.sum(dim=1).exp().detach()
        reward = torch.stack([torch.zeros(4, dtype=torch.float64), REWARD], dim=1)
        loss = 0.0
        if penalised == "reward":
            reward = reward - kl_estimate(log_ratio.detach(), "k1")
        else:
            loss = (probability[:, None] * kl_estimate(log_ratio, "k2")).sum()
        everything = torch.ones(4, 2, dtype=torch.bool)
        advantage, _ = gae(torch.zeros(4, 2, dtype=torch.float64), reward, everything, gamma=1.0, lam=1.0)
        optimiser.zero_grad()
        (loss - (probability[:, None] * advantage * log_probs).sum()).backward()
        optimiser.step()
    return log_probs_of_answers(first.log_softmax(0), second.log_softmax(1)).sum(dim=1).exp().detach()


def test_k1_in_the_reward_settles_at_the_optimum_of_reward_and_divergence_and_k2_in_the_loss_does_not() -> None:
    torch.testing.assert_close(settle("reward"), OPTIMUM, atol=1e-4, rtol=0)
    assert float(OPTIMUM[:2].sum()) == pytest.approx(0.348, abs=5e-4)
    assert float(settle("loss")[:2].sum()) == pytest.approx(0.853, abs=5e-4)


def test_the_expected_gradient_of_k3_as_a_loss_is_that_of_the_divergence_the_other_way() -> None:
    logits, log_probs = bandit()
    loss = (log_probs.exp().detach() * kl_estimate(log_probs - REFERENCE, "k3")).sum()
    other_logits, other = bandit()
    reverse = gradient((REFERENCE.exp() * (REFERENCE - other)).sum(), other_logits)
    torch.testing.assert_close(gradient(loss, logits), reverse)
    assert not torch.allclose(reverse, forward_kl(), atol=0.05)


def test_k1_as_a_penalty_in_the_reward_has_the_gradient_of_the_divergence() -> None:
    logits, log_probs = bandit()
    penalty = kl_estimate(log_probs - REFERENCE, "k1").detach()
    torch.testing.assert_close(gradient((log_probs.exp().detach() * penalty * log_probs).sum(), logits), forward_kl())


class Bandit(nn.Module):
    """The same distribution over three actions in every row."""

    def __init__(self, log_probs: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(log_probs)

    def get_dist(self, batch: TensorDict) -> Any:
        return SimpleNamespace(log_prob=lambda tokens: self.logits.log_softmax(0)[tokens])


@pytest.mark.parametrize("loss_class", [ClippedPolicyLoss, CISPOLoss])
@pytest.mark.parametrize("estimator", ["k2", "k1+", "k3+"])
def test_the_optimum_under_the_penalty_is_an_exact_fixed_point_of_the_loss(
    loss_class: Any, estimator: KLEstimator
) -> None:
    beta, reward = 0.4, torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64)

    def slope(log_probs: torch.Tensor, estimator: KLEstimator) -> torch.Tensor:
        batch = TensorDict(
            {
                "tokens": torch.arange(3)[:, None],
                "mask": torch.ones(3, 1, dtype=torch.bool),
                "log_probs": log_probs[:, None],
                "ref_log_probs": REFERENCE[:, None],
                "advantage": reward[:, None],
                "weight": log_probs.exp()[:, None],  # the expectation over all actions
                "episode": torch.arange(3),
            },
            batch_size=[3],
        )
        bandit = Bandit(log_probs.clone())
        output = loss_class(bandit, kl_coef=beta, kl_estimator=estimator)(batch)
        return gradient(output["loss_objective"] + output["loss_kl_to_ref"], bandit.logits)

    optimum = (REFERENCE + reward / beta).log_softmax(0)  # of E[reward] - beta KL(policy || reference)
    torch.testing.assert_close(slope(optimum, estimator), torch.zeros(3, dtype=torch.float64))
    assert slope(REFERENCE, estimator).abs().max() > 0.1
    assert slope(optimum, "k1").abs().max() > 0.1
    assert slope(optimum, "k3").abs().max() > 0.1


def test_k3_is_exact_where_the_policies_nearly_agree() -> None:
    small = torch.tensor(1e-3)
    assert float(kl_estimate(small, "k3")) == pytest.approx(5e-7, rel=1e-3)


def test_an_adaptive_coefficient_steers_towards_its_target() -> None:
    adaptive = AdaptiveKL(0.2, target=0.1, horizon=1000)
    adaptive.update(0.11, episodes=100)  # 10 % too far
    assert adaptive.coefficient == pytest.approx(0.2 * (1 + 0.1 * 100 / 1000))
    adaptive.update(0.1, episodes=100)
    assert adaptive.coefficient == pytest.approx(0.202)
    adaptive.update(50.0, episodes=100)  # by no more than a fifth
    assert adaptive.coefficient == pytest.approx(0.202 * 1.02)
    adaptive.update(0.0, episodes=100)
    assert adaptive.coefficient == pytest.approx(0.202 * 1.02 * 0.98)


def test_a_fixed_coefficient_stays() -> None:
    fixed = FixedKL(0.2)
    fixed.update(50.0, episodes=100)
    assert fixed.coefficient == 0.2


@pytest.mark.parametrize(("target", "horizon"), [(0.0, 100), (0.1, 0)])
def test_a_target_or_horizon_of_zero_is_refused(target: float, horizon: int) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        AdaptiveKL(0.1, target, horizon)


def test_an_adaptive_coefficient_never_changes_its_sign_however_short_its_horizon() -> None:
    controller = AdaptiveKL(0.1, target=0.05, horizon=1)
    for _ in range(50):
        controller.update(0.0, episodes=128)
    assert 0 < controller.coefficient < 0.1 * 0.81**50
    controller.update(1.0, episodes=0)  # nothing was measured
    assert controller.coefficient < 0.1 * 0.81**50

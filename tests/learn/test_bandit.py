"""Preference losses on a bandit with three actions: each is a response of one token, and everything is known."""

import itertools
from collections import defaultdict

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from llmgym.learn.losses import DPOLoss, LanguageModelLoss, SPPOLoss
from llmgym.learn.sampled_tokens import SampledTokens
from llmgym.learn.win_rates import win_rates
from llmgym.models.causal_lm import Head


class Bandit(nn.Module):
    """The same distribution over three actions in every row."""

    def __init__(self, policy: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(policy.log())  # [3]

    def get_dist(self, batch: TensorDict, **kwargs: object) -> SampledTokens:
        states = self.logits.expand(len(batch), 3)
        return SampledTokens(states, Head(torch.eye(3, dtype=states.dtype)), batch["mask"])


def expected_batch(policy: Tensor, preference: Tensor) -> TensorDict:
    """Each action once, weighted by how often `policy` takes it, with its true win rate against `policy`."""
    return TensorDict(
        {
            "tokens": torch.arange(3)[:, None],
            "mask": torch.ones(3, 1, dtype=torch.bool),
            "ref_log_probs": policy.log()[:, None],
            "win_rate": preference @ policy,
            "weight": policy,
            "episode": torch.arange(3),
        },
        batch_size=[3],
    )


def minimise(loss: LanguageModelLoss, bandit: Bandit, batch: TensorDict) -> Tensor:
    """The distribution over three actions with the smallest expected loss, found by gradient descent."""
    optimiser = torch.optim.LBFGS(
        bandit.parameters(), max_iter=500, tolerance_grad=1e-14, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        (value,) = (term for key, term in loss(batch).items() if key.startswith("loss_"))
        value.backward()
        return value

    optimiser.step(closure)
    return bandit.logits.detach().softmax(0)


def minimiser(policy: Tensor, preference: Tensor, eta: float) -> Tensor:
    """The next policy of SPPO."""
    bandit = Bandit(policy)
    loss = SPPOLoss(bandit, eta=eta)  # type: ignore[arg-type]
    return minimise(loss, bandit, expected_batch(policy, preference))


def lambert_w(x: Tensor) -> Tensor:
    """W with W exp(W) = x, by Newton's method."""
    w = torch.log1p(x)
    for _ in range(50):
        w = w - (w * w.exp() - x) / (w.exp() * (w + 1))
    return w


def closed_form(policy: Tensor, preference: Tensor, eta: float) -> Tensor:
    r"""The minimum of the expected loss among distributions.

    With u the log-ratio and t its target, the Lagrangian of :math:`\sum_y \pi_t (u - t)^2 / 2` under
    :math:`\sum_y \pi_t e^u = 1` is stationary where :math:`u + c e^u = t`, that is :math:`u = t - W(c e^t)`;
    c follows from the constraint, by bisection.
    """
    target = eta * (preference @ policy - 0.5)
    low, high = torch.tensor(0.0).double(), torch.tensor(1.0).double() * (target.exp().sum() + 1)
    for _ in range(200):
        c = (low + high) / 2
        ratio = (target - lambert_w(c * target.exp())).exp()
        low, high = (c, high) if (policy * ratio).sum() > 1 else (low, c)
    return policy * ratio


TRANSITIVE = torch.tensor([[0.5, 0.7, 0.9], [0.3, 0.5, 0.8], [0.1, 0.2, 0.5]], dtype=torch.float64)
CYCLIC = torch.tensor([[0.5, 0.9, 0.3], [0.1, 0.5, 0.7], [0.7, 0.3, 0.5]], dtype=torch.float64)
START = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
games = pytest.mark.parametrize("preference", [TRANSITIVE, CYCLIC], ids=["transitive", "cyclic"])


@games
@pytest.mark.parametrize("eta", [0.1, 1.0, 4.0])
def test_the_minimiser_is_the_closed_form(preference: Tensor, eta: float) -> None:
    found = minimiser(START, preference, eta)
    torch.testing.assert_close(found, closed_form(START, preference, eta), atol=1e-7, rtol=0)


@games
def test_the_minimiser_is_the_multiplicative_weights_step_up_to_the_third_order_of_eta(preference: Tensor) -> None:
    def difference(eta: float) -> float:
        step = START * (eta * (preference @ START)).exp()
        return float((closed_form(START, preference, eta) - step / step.sum()).abs().max())

    assert difference(0.02) / difference(0.01) == pytest.approx(8.0, rel=0.05)
    assert difference(0.01) < 1e-6


def test_the_equilibrium_of_a_game_is_an_exact_fixed_point() -> None:
    # The equilibrium plays each action as often as the other two differ.
    margins = CYCLIC - 0.5
    equilibrium = torch.stack([margins[1, 2], margins[2, 0], margins[0, 1]])
    equilibrium = equilibrium / equilibrium.sum()
    torch.testing.assert_close(CYCLIC @ equilibrium, torch.full((3,), 0.5).double())
    bandit = Bandit(equilibrium)
    loss = SPPOLoss(bandit, eta=10.0)(expected_batch(equilibrium, CYCLIC))["loss_sppo"]  # type: ignore[arg-type]
    assert loss.item() < 1e-28
    assert torch.autograd.grad(loss, bandit.logits)[0].abs().max().item() < 1e-14
    torch.testing.assert_close(minimiser(equilibrium, CYCLIC, 10.0), equilibrium)
    assert float((minimiser(START, CYCLIC, 1.0) - START).abs().max()) > 0.01


def test_iterating_finds_the_action_that_beats_the_others() -> None:
    policy = START
    for _ in range(20):
        policy = minimiser(policy, TRANSITIVE, 4.0)
    torch.testing.assert_close(policy, torch.tensor([1.0, 0.0, 0.0]).double(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_win_rates_in_a_group_estimate_the_true_one_without_bias(size: int) -> None:
    score = torch.tensor([0.0, 0.3, 1.0]).double()
    preference = (score[:, None] > score).double() + 0.5 * (score[:, None] == score)
    found, chance = defaultdict(float), defaultdict(float)
    for group in itertools.product(range(3), repeat=size):  # every group that can be sampled
        actions = torch.tensor(group)
        probability = float(START[actions].prod())
        rates = win_rates(score[actions], torch.zeros(size), torch.ones(size, dtype=torch.bool))
        for action, rate in zip(group, rates.tolist(), strict=True):
            found[action] += probability * rate
            chance[action] += probability
    expected = preference @ START
    for action in range(3):
        assert found[action] / chance[action] == pytest.approx(float(expected[action]))


@pytest.mark.parametrize("beta", [0.2, 1.0])
def test_the_minimiser_of_dpo_is_the_optimum_under_a_kl_penalty(beta: float) -> None:
    """Pairs labelled by Bradley-Terry with rewards r, whoever sampled them: the policy is pi_ref exp(r / beta) / Z."""
    reward = torch.tensor([1.0, 0.2, -0.5], dtype=torch.float64)
    sampler = torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64)
    ordered = list(itertools.permutations(range(3), 2))  # (chosen, rejected)
    actions = torch.tensor(ordered).flatten()
    chance = torch.stack([sampler[i] * sampler[j] * torch.sigmoid(reward[i] - reward[j]) for i, j in ordered])
    batch = TensorDict(
        {
            "tokens": actions[:, None],
            "mask": torch.ones(12, 1, dtype=torch.bool),
            "ref_log_probs": START.log()[actions][:, None],
            "weight": chance.repeat_interleave(2),
            "pair": torch.arange(6).repeat_interleave(2),
            "chosen": torch.tensor([True, False] * 6),
        },
        batch_size=[12],
    )
    bandit = Bandit(START)
    found = minimise(DPOLoss(bandit, beta=beta), bandit, batch)  # type: ignore[arg-type]
    expected = START * (reward / beta).exp()
    torch.testing.assert_close(found, expected / expected.sum(), atol=1e-7, rtol=0)

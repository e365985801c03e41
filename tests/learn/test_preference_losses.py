"""Losses over pairs: their equations, pair by pair, and what may not change them."""

import math
from collections.abc import Callable

import pytest
import torch
from preference_table import log_prob_lists, table_pairs, total
from tensordict import TensorDict
from test_clipped_policy import Table
from torch import Tensor, nn

from llmgym.errors import DataError
from llmgym.learn.losses.dpo import DPOLoss, dpo_loss
from llmgym.learn.losses.ipo import IPOLoss, ipo_loss
from llmgym.learn.losses.kl_dpo import KLDPOLoss
from llmgym.learn.losses.orpo import ORPOLoss, odds_ratio_loss
from llmgym.learn.losses.pairs import PairLoss
from llmgym.learn.losses.reward_mle import RewardMLELoss, expected_reward

Answer = list[tuple[Tensor, float]]
"""The log-probabilities of an answer's tokens, by the policy and by the reference."""


def log_ratio(answer: Answer) -> Tensor:
    return sum((ours - reference for ours, reference in answer), torch.zeros(()))


def sigmoid(value: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-value))


def log_prob(answer: Answer) -> Tensor:
    return sum((ours for ours, _ in answer), torch.zeros(()))


def mean_log_prob(answer: Answer) -> Tensor:
    return log_prob(answer) / max(1, len(answer))


Rewards = tuple[float, float]


def dpo(chosen: Answer, rejected: Answer, rewards: Rewards) -> Tensor:
    return -torch.log(sigmoid(0.3 * log_ratio(chosen) - 0.3 * log_ratio(rejected)))


def smoothed_dpo(chosen: Answer, rejected: Answer, rewards: Rewards) -> Tensor:
    return 0.9 * dpo(chosen, rejected, rewards) + 0.1 * dpo(rejected, chosen, rewards)


def ipo(chosen: Answer, rejected: Answer, rewards: Rewards) -> Tensor:
    return (log_ratio(chosen) - log_ratio(rejected) - 2.5) ** 2


def averaged_ipo(chosen: Answer, rejected: Answer, rewards: Rewards) -> Tensor:
    return (log_ratio(chosen) / max(1, len(chosen)) - log_ratio(rejected) / max(1, len(rejected)) - 2.5) ** 2


def orpo(chosen: Answer, rejected: Answer, rewards: Rewards) -> Tensor:
    if not (chosen and rejected):
        return -mean_log_prob(chosen)
    p, q = mean_log_prob(chosen).exp(), mean_log_prob(rejected).exp()
    return -torch.log(p) - 0.3 * torch.log(sigmoid(torch.log(p / (1 - p) / (q / (1 - q)))))


def kl_dpo(chosen: Answer, rejected: Answer, rewards: Rewards) -> Tensor:
    squares = [(ours - reference) ** 2 / 2 for ours, reference in [*chosen, *rejected]]
    return dpo(chosen, rejected, rewards) + 0.7 * sum(squares) / max(1, len(squares))


def reward_mle(chosen: Answer, rejected: Answer, rewards: Rewards) -> Tensor:
    p, q = log_prob(chosen).exp(), log_prob(rejected).exp()
    return -mean_log_prob(chosen) - 0.7 * (p * rewards[0] + q * rewards[1]) / (p + q)


EQUATIONS: dict[str, tuple[Callable[[Table], PairLoss], Callable[[Answer, Answer, Rewards], Tensor]]] = {
    "dpo": (lambda policy: DPOLoss(policy, beta=0.3), dpo),
    "dpo, smoothed": (lambda policy: DPOLoss(policy, beta=0.3, label_smoothing=0.1), smoothed_dpo),
    "ipo": (lambda policy: IPOLoss(policy, tau=0.2), ipo),
    "ipo, averaged": (lambda policy: IPOLoss(policy, tau=0.2, average_tokens=True), averaged_ipo),
    "orpo": (lambda policy: ORPOLoss(policy, beta=0.3), orpo),
    "kl_dpo": (lambda policy: KLDPOLoss(policy, beta=0.3, kl_coef=0.7), kl_dpo),
    "reward_mle": (lambda policy: RewardMLELoss(policy, reward_coef=0.7), reward_mle),
}
REWARDS = {1: (0.25, 0.0), 4: (1.0, -0.5), 7: (0.8, 0.9)}
every_loss = pytest.mark.parametrize("name", EQUATIONS)


@every_loss
def test_value_and_gradient_equal_the_equation_pair_by_pair(name: str) -> None:
    make, equation = EQUATIONS[name]
    policy, batch = table_pairs()
    actual = total(make(policy)(batch))
    pairs = {pair: [log_prob_lists(policy, batch, pair, chosen) for chosen in (True, False)] for pair in REWARDS}
    expected = torch.stack([equation(*answers, REWARDS[pair]) for pair, answers in pairs.items()]).mean()
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, policy.logits)[0] for loss in (actual, expected)))


def loss_gradient_and_metrics(name: str, policy: Table, batch: TensorDict) -> tuple[Tensor, Tensor, TensorDict]:
    output = EQUATIONS[name][0](policy)(batch)
    return total(output), torch.autograd.grad(total(output), policy.logits, retain_graph=True)[0], output.detach()


@every_loss
@pytest.mark.parametrize("padding", [1, 40])
def test_padding_changes_nothing(name: str, padding: int) -> None:
    policy, batch = table_pairs()
    loss, gradient, output = loss_gradient_and_metrics(name, policy, batch)
    wide = batch.apply(lambda tensor: nn.functional.pad(tensor, (0, padding)) if tensor.ndim > 1 else tensor)
    padded = Table(nn.functional.pad(policy.logits.data, (0, 0, 0, padding)))
    wide_loss, wide_gradient, wide_output = loss_gradient_and_metrics(name, padded, wide)
    torch.testing.assert_close(wide_loss, loss)
    torch.testing.assert_close(wide_gradient[:, : gradient.shape[1]], gradient)
    assert not wide_gradient[:, gradient.shape[1] :].any()
    torch.testing.assert_close(wide_output.to_dict(), output.to_dict())


@every_loss
def test_what_is_at_masked_positions_reaches_neither_loss_nor_gradient(name: str) -> None:
    policy, batch = table_pairs()
    loss, gradient, _ = loss_gradient_and_metrics(name, policy, batch)
    hidden = ~batch["mask"]
    poisoned = batch.clone()
    poisoned["ref_log_probs"][hidden] = math.nan
    poisoned["tokens"][hidden] = 0
    with torch.no_grad():
        policy.logits[hidden] = 1e4
    torch.testing.assert_close(loss_gradient_and_metrics(name, policy, poisoned)[:2], (loss, gradient))


@every_loss
def test_taking_the_observations_out_changes_nothing(name: str) -> None:
    policy, batch = table_pairs()
    loss, gradient, output = loss_gradient_and_metrics(name, policy, batch)
    order = (~batch["mask"]).long().argsort(dim=1, stable=True)  # [B, T]: what was sampled comes first
    width = int(batch["mask"].sum(dim=1).max())
    bare = batch.apply(lambda tensor: tensor.gather(1, order)[:, :width] if tensor.ndim > 1 else tensor)
    index = order[:, :width, None].expand(-1, -1, policy.logits.shape[2])
    short = Table(policy.logits.data.gather(1, index))
    bare_loss, bare_gradient, bare_output = loss_gradient_and_metrics(name, short, bare)
    torch.testing.assert_close(bare_loss, loss)
    torch.testing.assert_close(bare_gradient, gradient.gather(1, index))
    torch.testing.assert_close(bare_output.to_dict(), output.to_dict())


@every_loss
def test_pairs_may_be_in_any_order(name: str) -> None:
    policy, batch = table_pairs()
    loss, gradient, output = loss_gradient_and_metrics(name, policy, batch)
    order = torch.tensor([2, 3, 4, 5, 6, 0, 1])
    shuffled = Table(policy.logits.data[order])
    other_loss, other_gradient, other_output = loss_gradient_and_metrics(name, shuffled, batch[order])
    torch.testing.assert_close(other_loss, loss)
    torch.testing.assert_close(other_gradient, gradient[order])
    torch.testing.assert_close(other_output.to_dict(), output.to_dict())


@every_loss
def test_micro_batches_of_whole_pairs_add_up_to_the_batch(name: str) -> None:
    policy, batch = table_pairs()
    loss, gradient, output = loss_gradient_and_metrics(name, policy, batch)
    module = EQUATIONS[name][0](policy)
    batch["weight"] = module.weights(batch)
    losses, metrics = [], TensorDict()
    for rows in (slice(0, 2), slice(2, 4), slice(4, 7)):
        table = Table(policy.logits[rows])
        table._parameters["logits"] = policy.logits[rows]  # a view, so that gradients flow into the whole table
        part = EQUATIONS[name][0](table)(batch[rows])
        losses.append(total(part))
        share = module.count(batch[rows]) / module.count(batch)
        metrics = TensorDict({key: metrics.get(key, 0.0) + share * value.detach() for key, value in part.items()})
    split = torch.stack(losses).sum()
    torch.testing.assert_close(split, loss)
    torch.testing.assert_close(torch.autograd.grad(split, policy.logits)[0], gradient)
    for key, value in output.items():
        if not key.startswith("loss_"):
            torch.testing.assert_close(metrics[key], value, msg=key)


@every_loss
def test_a_batch_without_a_single_token_has_no_gradient(name: str) -> None:
    policy, batch = table_pairs()
    batch["mask"] = torch.zeros_like(batch["mask"])
    loss, gradient, output = loss_gradient_and_metrics(name, policy, batch)
    assert loss.isfinite()
    assert not gradient.any()
    assert all(value.isfinite() for value in output.values())


@every_loss
def test_half_a_pair_is_refused(name: str) -> None:
    policy, batch = table_pairs()
    half = Table(policy.logits.data[:3])
    with pytest.raises(DataError, match="one answer is missing"):
        EQUATIONS[name][0](half)(batch[:3])


def test_dpo_at_the_reference_is_log_2_whatever_the_smoothing() -> None:
    zero = torch.zeros(3)
    for smoothing in (0.0, 0.25):
        torch.testing.assert_close(dpo_loss(zero, zero, 0.1, smoothing), torch.full((3,), math.log(2)))


def test_a_huge_margin_gives_dpo_a_finite_loss() -> None:
    ratio = torch.tensor([1e4, -1e4], requires_grad=True)
    losses = dpo_loss(ratio, -ratio.detach(), beta=1.0)
    torch.testing.assert_close(losses.detach(), torch.tensor([0.0, 2e4]))
    (gradient,) = torch.autograd.grad(losses.sum(), ratio)
    torch.testing.assert_close(gradient, torch.tensor([0.0, -1.0]))


def test_metrics_tell_how_the_implicit_rewards_rank_the_pairs() -> None:
    policy, batch = table_pairs()
    output = DPOLoss(policy, beta=0.3)(batch)
    ratios = [[log_ratio(log_prob_lists(policy, batch, p, c)).item() for c in (True, False)] for p in (1, 4, 7)]
    assert output["chosen_reward"].item() == pytest.approx(0.3 * sum(c for c, _ in ratios) / 3, rel=1e-5)
    assert output["rejected_reward"].item() == pytest.approx(0.3 * sum(r for _, r in ratios) / 3, rel=1e-5)
    assert output["margin"].item() == pytest.approx(0.3 * sum(c - r for c, r in ratios) / 3, rel=1e-5)
    assert output["accuracy"].item() == pytest.approx(sum(c > r for c, r in ratios) / 3)


def test_ipo_is_content_at_its_gap_and_pulls_back_from_beyond() -> None:
    gap = torch.tensor([4.0, 5.0, 6.0], requires_grad=True)
    losses = ipo_loss(gap, torch.zeros(3), tau=0.1)
    torch.testing.assert_close(losses.detach(), torch.tensor([1.0, 0.0, 1.0]))
    torch.testing.assert_close(torch.autograd.grad(losses.sum(), gap)[0], torch.tensor([-2.0, 0.0, 2.0]))


def test_the_odds_ratio_loss_has_its_published_values() -> None:
    losses = odds_ratio_loss(torch.tensor([-0.5, -1.0]), torch.tensor([-0.9, -0.7]))
    torch.testing.assert_close(-0.1 * losses, torch.tensor([-0.036773, -0.099139]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("log_prob", [0.0, -1e-9, -1e-4, -0.69, -0.7, -30.0, -500.0])
def test_odds_are_finite_and_accurate_from_certain_to_impossible(log_prob: float) -> None:
    chosen = torch.tensor([log_prob], requires_grad=True)
    loss = odds_ratio_loss(chosen, torch.tensor([-0.5]))
    (gradient,) = torch.autograd.grad(loss.sum(), chosen)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()
    if -500 < log_prob < -1e-7:
        p, q = (torch.tensor(value, dtype=torch.float64).exp() for value in (log_prob, -0.5))
        expected = -torch.log(sigmoid(torch.log(p / (1 - p) / (q / (1 - q)))))
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_penalty_holds_dpo_back_and_none_is_dpo() -> None:
    policy, batch = table_pairs()
    dpo_output, free = DPOLoss(policy, beta=0.3)(batch), KLDPOLoss(policy, beta=0.3, kl_coef=0.0)(batch)
    torch.testing.assert_close(total(free), total(dpo_output))
    at_reference = batch.clone()
    table = policy.logits.detach().log_softmax(-1)
    at_reference["ref_log_probs"] = table.gather(2, batch["tokens"][..., None])[..., 0]
    held = KLDPOLoss(policy, beta=0.3, kl_coef=0.7)(at_reference)
    assert float(held["kl_to_ref"]) == pytest.approx(0.0, abs=1e-12)
    assert torch.autograd.grad(held["loss_kl_to_ref"], policy.logits)[0].abs().max() < 1e-6


def test_the_expected_reward_has_a_gradient_where_the_rewards_differ() -> None:
    chosen = torch.tensor([-1.0, -1.0, -50.0], requires_grad=True)
    rewards = torch.tensor([1.0, 0.5, 2.0]), torch.tensor([0.0, 0.5, -1.0])
    expected = expected_reward(chosen, torch.tensor([-1.0, -3.0, -1.0]), *rewards)
    torch.testing.assert_close(expected.detach(), torch.tensor([0.5, 0.5, -1.0]))
    (gradient,) = torch.autograd.grad(expected.sum(), chosen)
    torch.testing.assert_close(gradient, torch.tensor([0.25, 0.0, 0.0]))

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
from llmgym.learn.losses.pairs import PairLoss

Answer = list[tuple[Tensor, float]]
"""The log-probabilities of an answer's tokens, by the policy and by the reference."""


def log_ratio(answer: Answer) -> Tensor:
    return sum((ours - reference for ours, reference in answer), torch.zeros(()))


def sigmoid(value: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-value))


def dpo(chosen: Answer, rejected: Answer) -> Tensor:
    return -torch.log(sigmoid(0.3 * log_ratio(chosen) - 0.3 * log_ratio(rejected)))


def smoothed_dpo(chosen: Answer, rejected: Answer) -> Tensor:
    return 0.9 * dpo(chosen, rejected) + 0.1 * dpo(rejected, chosen)


EQUATIONS: dict[str, tuple[Callable[[Table], PairLoss], Callable[[Answer, Answer], Tensor]]] = {
    "dpo": (lambda policy: DPOLoss(policy, beta=0.3), dpo),
    "dpo, smoothed": (lambda policy: DPOLoss(policy, beta=0.3, label_smoothing=0.1), smoothed_dpo),
}
every_loss = pytest.mark.parametrize("name", EQUATIONS)


@every_loss
def test_value_and_gradient_equal_the_equation_pair_by_pair(name: str) -> None:
    make, equation = EQUATIONS[name]
    policy, batch = table_pairs()
    actual = total(make(policy)(batch))
    pairs = [[log_prob_lists(policy, batch, pair, chosen) for chosen in (True, False)] for pair in (1, 4, 7)]
    expected = torch.stack([equation(*pair) for pair in pairs]).mean()
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
def test_what_stands_at_masked_positions_reaches_neither_loss_nor_gradient(name: str) -> None:
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
def test_pairs_may_stand_in_any_order(name: str) -> None:
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


def test_a_margin_beyond_all_bounds_gives_dpo_no_infinity() -> None:
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

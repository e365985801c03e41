"""KTO: its equation, answer by answer, its reference point, and what may not change them."""

import math

import pytest
import torch
from preference_table import table_pairs
from tensordict import TensorDict
from test_clipped_policy import Table
from torch import Tensor, nn

from llmgym.learn.losses.kto import KTOLoss, kto_loss, reference_point

OPTIONS = {"beta": 0.3, "desirable_weight": 1.3, "undesirable_weight": 0.7}


def table_answers() -> tuple[Table, TensorDict]:
    """Six answers in seven rows; that with the number 3 has no tokens."""
    policy, batch = table_pairs()
    batch["desirable"] = batch["chosen"]
    batch["reference_point"] = torch.full((len(batch),), 0.4)
    return policy, batch.exclude("pair", "chosen")


def outcome(policy: Table, batch: TensorDict) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    output = KTOLoss(policy, **OPTIONS)(batch)
    gradient = torch.autograd.grad(output["loss_kto"], policy.logits, retain_graph=True)[0]
    return output["loss_kto"], gradient, output.detach().to_dict()


def log_ratios(policy: Table, batch: TensorDict) -> dict[int, Tensor]:
    table = policy.logits.log_softmax(-1)
    sums = {int(episode): torch.zeros(()) for episode in batch["episode"]}
    for b, t in batch["mask"].nonzero().tolist():
        difference = table[b, t, batch["tokens"][b, t]] - batch["ref_log_probs"][b, t]
        sums[int(batch["episode"][b])] = sums[int(batch["episode"][b])] + difference
    return sums


def test_value_and_gradient_equal_the_equation_answer_by_answer() -> None:
    policy, batch = table_answers()
    loss, gradient, _ = outcome(policy, batch)
    desirable = dict(zip(batch["episode"].tolist(), batch["desirable"].tolist(), strict=True))
    expected = torch.zeros(())
    for episode, ratio in log_ratios(policy, batch).items():
        if desirable[episode]:
            value = 1.3 / (1 + torch.exp(-0.3 * (ratio - 0.4)))
            expected = expected + (1.3 - value) / 6
        else:
            value = 0.7 / (1 + torch.exp(-0.3 * (0.4 - ratio)))
            expected = expected + (0.7 - value) / 6
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, policy.logits)[0])


def test_padding_and_what_is_at_masked_positions_change_nothing() -> None:
    policy, batch = table_answers()
    expected = outcome(policy, batch)
    wide = batch.apply(lambda tensor: nn.functional.pad(tensor, (0, 7)) if tensor.ndim > 1 else tensor)
    wide["ref_log_probs"][~wide["mask"]] = math.nan
    table = Table(nn.functional.pad(policy.logits.data, (0, 0, 0, 7), value=9.0))
    loss, gradient, output = outcome(table, wide)
    torch.testing.assert_close(loss, expected[0])
    torch.testing.assert_close(gradient[:, :-7], expected[1])
    assert not gradient[~wide["mask"]].any()
    torch.testing.assert_close(output, expected[2])


def test_taking_the_observations_out_changes_nothing() -> None:
    policy, batch = table_answers()
    expected = outcome(policy, batch)
    order = (~batch["mask"]).long().argsort(dim=1, stable=True)
    bare = batch.apply(lambda tensor: tensor.gather(1, order) if tensor.ndim > 1 else tensor)
    index = order[..., None].expand(policy.logits.shape)
    loss, gradient, output = outcome(Table(policy.logits.data.gather(1, index)), bare)
    torch.testing.assert_close(loss, expected[0])
    torch.testing.assert_close(gradient, expected[1].gather(1, index))
    torch.testing.assert_close(output, expected[2])


def test_answers_may_be_in_any_order() -> None:
    policy, batch = table_answers()
    expected = outcome(policy, batch)
    order = torch.tensor([6, 4, 5, 2, 0, 1, 3])
    loss, gradient, output = outcome(Table(policy.logits.data[order]), batch[order])
    torch.testing.assert_close(loss, expected[0])
    torch.testing.assert_close(gradient, expected[1][order])
    torch.testing.assert_close(output, expected[2])


def test_micro_batches_of_whole_answers_add_up_to_the_batch() -> None:
    policy, batch = table_answers()
    whole, gradient, output = outcome(policy, batch)
    module = KTOLoss(policy, **OPTIONS)
    batch["weight"] = module.weights(batch)
    split, gain = torch.zeros(()), 0.0
    for rows in (slice(0, 1), slice(1, 4), slice(4, 7)):
        table = Table(policy.logits[rows])
        table._parameters["logits"] = policy.logits[rows]  # a view, so that gradients flow into the whole table
        part = KTOLoss(table, **OPTIONS)(batch[rows])
        split = split + part["loss_kto"]
        gain += float(part["gain"]) * module.count(batch[rows]) / module.count(batch)
    torch.testing.assert_close(split, whole)
    torch.testing.assert_close(torch.autograd.grad(split, policy.logits)[0], gradient)
    assert gain == pytest.approx(float(output["gain"]), rel=1e-5)


def test_a_batch_without_a_single_token_has_no_gradient() -> None:
    policy, batch = table_answers()
    batch["mask"] = torch.zeros_like(batch["mask"])
    loss, gradient, _ = outcome(policy, batch)
    assert loss.isfinite()
    assert not gradient.any()


def test_the_reference_point_is_the_mean_log_ratio_never_negative_and_without_a_gradient() -> None:
    ratios = torch.tensor([1.0, -0.5, 4.0], requires_grad=True)
    assert reference_point(ratios).item() == pytest.approx(1.5)
    assert reference_point(-ratios).item() == 0.0
    assert reference_point(ratios[:0]).item() == 0.0
    assert not reference_point(ratios).requires_grad


def test_an_answer_far_beyond_the_reference_point_has_no_say_left() -> None:
    ratio = torch.tensor([0.4, 400.0, -400.0], requires_grad=True)
    losses = kto_loss(ratio, torch.tensor([True, True, True]), torch.tensor(0.4), beta=1.0)
    torch.testing.assert_close(losses.detach(), torch.tensor([0.5, 0.0, 1.0]))
    torch.testing.assert_close(torch.autograd.grad(losses.sum(), ratio)[0], torch.tensor([-0.25, 0.0, 0.0]))


def test_metrics_tell_gains_from_losses() -> None:
    policy, batch = table_answers()
    _, _, output = outcome(policy, batch)
    desirable = dict(zip(batch["episode"].tolist(), batch["desirable"].tolist(), strict=True))
    gains = [0.3 * (r - 0.4) * (1 if desirable[e] else -1) for e, r in log_ratios(policy, batch).items()]
    assert output["accuracy"].item() == pytest.approx(sum(gain > 0 for gain in gains) / 6)
    assert output["gain"].item() == pytest.approx(sum(gain.item() for gain in gains) / 6, rel=1e-5)
    assert output["reference_point"].item() == pytest.approx(0.4)

"""The SPPO loss: its equation, and what may not change it."""

import math

import pytest
import torch
from conftest import random_model
from tensordict import TensorDict
from test_clipped_policy import Table
from test_policy import gradient, ragged_batch
from torch import Tensor, nn

from llmgym.learn.batch import micro_batches
from llmgym.learn.losses.sppo import SPPOLoss, sppo_loss
from llmgym.learn.policy import Policy

EPISODES = [0, 1, 1, 2, 3]  # of the rows: the second has two, the third has nothing sampled
WIN_RATES = [0.75, 0.0, 0.0, 0.5, 1.0]


def table_responses(vocabulary: int = 5, seed: int = 0) -> tuple[Table, TensorDict]:
    rng = torch.Generator().manual_seed(seed)
    shape = (len(EPISODES), 9)
    mask = torch.rand(shape, generator=rng) < 0.6
    mask[:, 0] = False
    mask[3] = False
    batch = TensorDict(
        {
            "tokens": torch.randint(vocabulary, shape, generator=rng),
            "mask": mask,
            "ref_log_probs": (0.7 * torch.randn(shape, generator=rng) - 1.5) * mask,
            "win_rate": torch.tensor(WIN_RATES),
            "episode": torch.tensor(EPISODES),
        },
        batch_size=shape[:1],
    )
    return Table(torch.randn(*shape, vocabulary, generator=rng)), batch


def by_hand(policy: Table, batch: TensorDict, eta: float) -> Tensor:
    """The equation, response by response and token by token."""
    log_probs = policy.logits.log_softmax(-1)
    losses = []
    for episode, win_rate in zip([0, 1, 2, 3], [0.75, 0.0, 0.5, 1.0], strict=True):
        log_ratio = torch.zeros(())
        for b, t in batch["mask"].nonzero().tolist():
            if EPISODES[b] == episode:
                log_ratio = log_ratio + log_probs[b, t, batch["tokens"][b, t]] - batch["ref_log_probs"][b, t]
        losses.append((log_ratio - eta * (win_rate - 0.5)) ** 2 / 2)
    return sum(losses, torch.zeros(())) / 4


def loss_gradient_and_metrics(policy: Table, batch: TensorDict) -> tuple[Tensor, Tensor, TensorDict]:
    output = SPPOLoss(policy, eta=3.0)(batch)  # type: ignore[arg-type]
    loss = output["loss_sppo"]
    return loss, torch.autograd.grad(loss, policy.logits)[0], output.detach()


@pytest.mark.parametrize("eta", [0.5, 3.0, 1000.0])
def test_value_and_gradient_equal_the_equation(eta: float) -> None:
    policy, batch = table_responses()
    actual = SPPOLoss(policy, eta=eta)(batch)["loss_sppo"]  # type: ignore[arg-type]
    expected = by_hand(policy, batch, eta)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, policy.logits)[0] for loss in (actual, expected)))


def test_at_certain_wins_and_losses_it_is_the_sum_that_pairs_are_trained_on() -> None:
    # Halved: (log-ratio - eta / 2)^2 of the winner, with P = 1, and (log-ratio + eta / 2)^2 of the loser, with P = 0.
    won, lost, eta = torch.tensor(0.3), torch.tensor(-0.8), 2.0
    losses = sppo_loss(torch.stack([won, lost]), torch.tensor([1.0, 0.0]), eta)
    assert losses.sum() == pytest.approx(float(((won - eta / 2) ** 2 + (lost + eta / 2) ** 2) / 2))


@pytest.mark.parametrize("padding", [1, 40])
def test_padding_changes_nothing(padding: int) -> None:
    policy, batch = table_responses()
    loss, grad, output = loss_gradient_and_metrics(policy, batch)
    wide = batch.apply(lambda tensor: nn.functional.pad(tensor, (0, padding)) if tensor.ndim > 1 else tensor)
    padded = Table(nn.functional.pad(policy.logits.data, (0, 0, 0, padding)))
    wide_loss, wide_grad, wide_output = loss_gradient_and_metrics(padded, wide)
    torch.testing.assert_close(wide_loss, loss)
    torch.testing.assert_close(wide_grad[:, : grad.shape[1]], grad)
    torch.testing.assert_close(wide_output.to_dict(), output.to_dict())


def test_what_is_at_masked_positions_reaches_neither_loss_nor_gradient() -> None:
    policy, batch = table_responses()
    loss, grad, _ = loss_gradient_and_metrics(policy, batch)
    hidden = ~batch["mask"]
    batch["ref_log_probs"][hidden] = math.nan
    batch["tokens"][hidden] = 0
    with torch.no_grad():
        policy.logits[hidden] = 1e4
    torch.testing.assert_close(loss_gradient_and_metrics(policy, batch)[:2], (loss, grad))
    assert not grad[hidden].any()


def test_taking_the_observations_out_changes_nothing() -> None:
    policy, batch = table_responses()
    loss, grad, output = loss_gradient_and_metrics(policy, batch)
    order = (~batch["mask"]).long().argsort(dim=1, stable=True)  # [B, T]: what was sampled comes first
    width = int(batch["mask"].sum(dim=1).max())
    bare = batch.apply(lambda tensor: tensor.gather(1, order)[:, :width] if tensor.ndim > 1 else tensor)
    index = order[:, :width, None].expand(-1, -1, policy.logits.shape[2])
    bare_loss, bare_grad, bare_output = loss_gradient_and_metrics(Table(policy.logits.data.gather(1, index)), bare)
    torch.testing.assert_close(bare_loss, loss)
    torch.testing.assert_close(bare_grad, grad.gather(1, index))
    torch.testing.assert_close(bare_output.to_dict(), output.to_dict())


def test_responses_may_be_in_any_order() -> None:
    policy, batch = table_responses()
    loss, grad, output = loss_gradient_and_metrics(policy, batch)
    order = torch.tensor([4, 1, 2, 0, 3])
    other_loss, other_grad, other_output = loss_gradient_and_metrics(Table(policy.logits.data[order]), batch[order])
    torch.testing.assert_close(other_loss, loss)
    torch.testing.assert_close(other_grad, grad[order])
    torch.testing.assert_close(other_output.to_dict(), output.to_dict())


@pytest.mark.parametrize("max_tokens", [1, 60, 150])
def test_splitting_into_micro_batches_changes_no_loss_no_metric_and_no_gradient(max_tokens: int) -> None:
    model = random_model("llama")
    policy, batch = Policy(model), ragged_batch()
    batch["episode"] = torch.tensor([0, 0, 1, 2, 3, 4, 5])  # the first has two rows
    batch["win_rate"] = torch.tensor([1.0, 1.0, 0.0, 0.5, 0.25, 0.0, 1.0])
    with torch.no_grad():
        batch["ref_log_probs"] = policy.log_probs(batch)
        for parameter in model.parameters():
            parameter.mul_(1.02)
    loss = SPPOLoss(policy, eta=2.0)
    output = loss(batch)
    expected = gradient(model, output["loss_sppo"])
    batch["weight"] = loss.weights(batch)
    parts = list(micro_batches(batch, max_tokens, loss.unit))
    assert len(parts) > 1
    outputs = [loss(part) for part in parts]
    shares = torch.tensor([loss.count(part) for part in parts]) / loss.count(batch)
    split = torch.stack([part["loss_sppo"] for part in outputs]).sum()
    torch.testing.assert_close(split, output["loss_sppo"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradient(model, split), expected, atol=1e-4, rtol=1e-3)
    for metric in ("log_ratio", "accuracy"):
        mean = (torch.stack([part[metric] for part in outputs]) * shares).sum()
        torch.testing.assert_close(mean, output[metric], atol=1e-5, rtol=1e-4)


def test_a_response_without_a_win_rate_is_as_good_as_absent() -> None:
    policy, batch = table_responses()
    batch["win_rate"] = torch.tensor([0.75, math.nan, math.nan, 0.5, 1.0])
    loss, grad, output = loss_gradient_and_metrics(policy, batch)
    rest = torch.tensor([0, 3, 4])
    expected, expected_grad, expected_output = loss_gradient_and_metrics(Table(policy.logits.data[rest]), batch[rest])
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grad[rest], expected_grad)
    assert not grad[1:3].any()
    torch.testing.assert_close(output.to_dict(), expected_output.to_dict())
    assert SPPOLoss(policy, eta=3.0).count(batch) == 3  # type: ignore[arg-type]


def test_where_no_response_has_a_win_rate_the_loss_is_zero() -> None:
    policy, batch = table_responses()
    batch["win_rate"] = torch.full((5,), math.nan)
    loss, grad, _ = loss_gradient_and_metrics(policy, batch)
    assert loss == 0.0
    assert not grad.any()


def test_a_tie_everywhere_pulls_to_the_reference_and_starts_without_a_gradient() -> None:
    policy, batch = table_responses()
    with torch.no_grad():
        batch["ref_log_probs"] = policy.get_dist(batch).log_prob(batch["tokens"])
    batch["win_rate"] = torch.full((5,), 0.5)
    loss, grad, output = loss_gradient_and_metrics(policy, batch)
    assert loss == 0.0
    assert not grad.any()
    assert output["accuracy"] == 0.5

"""The Bradley-Terry loss is the likelihood of the preferences, however the batch is cut."""

import math

import pytest
import torch
from tensordict import TensorDict
from test_reward_model_forward import make, some_episodes
from transformers import PreTrainedTokenizerFast

from llmgym.learn.learner import Learner
from llmgym.learn.losses import BradleyTerryLoss
from llmgym.learn.losses.bradley_terry import bradley_terry
from llmgym.learn.reward_model import RewardModel


def pairs(model: RewardModel, margins: list[float] | None = None) -> TensorDict:
    rows = [model.encode(episode.messages) for episode in some_episodes(4, 2)]
    batch = model.collate([rows[i : i + 2] for i in range(0, len(rows), 2)])
    batch["pair"] = torch.arange(4).repeat_interleave(2)
    batch["chosen"] = torch.arange(8) % 2 == 0
    if margins is not None:
        batch["margin"] = torch.tensor(margins).repeat_interleave(2)
    return batch


def test_it_is_minus_the_log_probability_that_the_chosen_one_wins() -> None:
    chosen = torch.tensor([0.0, 1.0, 60.0, -60.0], dtype=torch.float64)
    rejected = torch.tensor([0.0, -0.5, -60.0, 60.0], dtype=torch.float64)
    loss = bradley_terry(chosen, rejected)
    assert loss[0] == pytest.approx(math.log(2))
    assert loss[1] == pytest.approx(math.log(1 + math.exp(-1.5)))
    assert loss[2] == pytest.approx(math.exp(-120.0))
    assert loss[3] == pytest.approx(120.0)
    torch.testing.assert_close(bradley_terry(chosen + 7, rejected + 7), loss)
    torch.testing.assert_close(bradley_terry(chosen, rejected, 0.5), bradley_terry(chosen - 0.5, rejected))


def test_its_gradient_is_the_probability_of_being_wrong() -> None:
    chosen = torch.tensor([0.3, -2.0], requires_grad=True)
    rejected = torch.tensor([0.1, 1.0], requires_grad=True)
    bradley_terry(chosen, rejected, torch.tensor([0.0, 0.5])).sum().backward()
    wrong = [1 / (1 + math.exp(0.2)), 1 / (1 + math.exp(-3.5))]
    assert chosen.grad.tolist() == pytest.approx([-p for p in wrong])
    assert rejected.grad.tolist() == pytest.approx(wrong)


@pytest.mark.parametrize("margins", [None, [0.0, 1.0, 0.5, 2.0]])
@pytest.mark.parametrize("center_coef", [0.0, 0.3])
def test_value_and_gradient_are_those_of_the_equation(
    tokenizer: PreTrainedTokenizerFast, center_coef: float, margins: list[float] | None
) -> None:
    model = make("llama", tokenizer)
    batch = pairs(model, margins)
    out = BradleyTerryLoss(model, center_coef=center_coef)(batch)
    total = out["loss_preference"] + (out["loss_center"] if center_coef else 0.0)
    total.backward()
    found = {name: parameter.grad.clone() for name, parameter in model.model.named_parameters()}
    model.model.zero_grad()
    rewards = [model.model(batch["tokens"][i : i + 1, : batch["length"][i] - 1]).logits[0, 0] for i in range(8)]
    expected = 0.0
    right = 0
    for pair in range(4):
        better, worse = rewards[2 * pair], rewards[2 * pair + 1]
        gap = better - worse - (margins[pair] if margins else 0.0)
        expected = expected + (torch.log1p(torch.exp(-gap)) + center_coef * (better + worse) ** 2) / 4
        right += bool(better > worse)
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-6)
    assert float(out["accuracy"]) == right / 4
    expected.backward()
    for name, parameter in model.model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("micro_batch_tokens", [1, 150])
def test_cutting_into_micro_batches_changes_neither_metrics_nor_gradient(
    tokenizer: PreTrainedTokenizerFast, micro_batch_tokens: int
) -> None:
    models = [make("qwen2", tokenizer) for _ in range(2)]
    metrics = [
        Learner(
            BradleyTerryLoss(model, center_coef=0.01), learning_rate=1e-3, max_grad_norm=1e9, micro_batch_tokens=tokens
        ).update(pairs(model, [0.0, 1.0, 0.5, 2.0]))
        for model, tokens in zip(models, (10**6, micro_batch_tokens), strict=True)
    ]
    assert metrics[1] == pytest.approx(metrics[0], rel=1e-3, abs=1e-6)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-3)


def test_what_is_in_the_padding_and_the_order_of_pairs_change_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    model = make("llama", tokenizer)
    batch = pairs(model, [0.0, 1.0, 0.5, 2.0])
    loss = BradleyTerryLoss(model, center_coef=0.01)
    expected = {name: float(value) for name, value in loss(batch).items()}
    beyond = torch.arange(batch["tokens"].shape[1]) >= batch["length"][:, None] - 1
    other = batch.clone()
    other["tokens"] = torch.where(beyond, 77, batch["tokens"])
    assert {name: float(value) for name, value in loss(other).items()} == pytest.approx(expected)
    permuted = batch[torch.tensor([4, 5, 0, 1, 6, 7, 2, 3])]
    assert {name: float(value) for name, value in loss(permuted).items()} == pytest.approx(expected, abs=1e-5)


def test_learning_makes_the_chosen_side_win_and_centring_draws_rewards_to_zero(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    sums = []
    for center_coef in (0.0, 0.5):
        model = make("llama", tokenizer)
        learner = Learner(BradleyTerryLoss(model, center_coef=center_coef), learning_rate=3e-3)
        batch = pairs(model)
        metrics = [learner.update(batch) for _ in range(60)]
        assert metrics[-1]["accuracy"] == 1.0
        assert metrics[-1]["loss_preference"] < min(0.3, metrics[0]["loss_preference"])
        with torch.no_grad():
            sums.append(float(model(batch).view(-1, 2).sum(1).abs().mean()))
    assert sums[1] < 0.5 * sums[0]

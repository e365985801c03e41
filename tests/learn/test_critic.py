"""The critic: values of the state before each sampled token, from the same packed pass as the policy's."""

import math

import pytest
import torch
from tensordict import TensorDict
from test_policy import gradient, ragged_batch
from torch import nn
from transformers import PreTrainedModel

from llmgym.config.choices import TrunkChoice
from llmgym.learn.critic import Critic, explained_variance, values_of
from llmgym.learn.packed_attention import PACKED
from llmgym.learn.policy import Policy


def critic_of(policy: Policy, trunk: TrunkChoice = "own") -> Critic:
    """A critic whose head has learnt something."""
    critic = Critic.of(policy, trunk)
    torch.manual_seed(5)
    nn.init.normal_(critic.head.weight, std=0.3)
    nn.init.constant_(critic.head.bias, 0.1)
    return critic


def plain_values(critic: Critic, model: PreTrainedModel, batch: TensorDict) -> torch.Tensor:
    """Row by row, each in a forward pass of its own: the head on the hidden state one token earlier."""
    rows = torch.zeros(batch["tokens"].shape)
    for i, (tokens, mask, length) in enumerate(zip(batch["tokens"], batch["mask"], batch["length"], strict=True)):
        hidden = model.base_model(tokens[None, :length])[0][0]  # [t, D]
        for t in mask.nonzero()[:, 0].tolist():
            rows[i, t] = critic.head.weight[0] @ hidden[t - 1] + critic.head.bias[0]
    return rows


@pytest.mark.parametrize("trunk", ["own", "shared"])
def test_values_and_gradients_equal_plain_forward_passes(model: PreTrainedModel, trunk: TrunkChoice) -> None:
    batch, critic = ragged_batch(), critic_of(Policy(model), trunk)
    weights = torch.randn(batch["tokens"].shape, generator=torch.Generator().manual_seed(1))
    expected = plain_values(critic, model, batch)
    actual = critic.values(batch)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    assert not actual[~batch["mask"]].any()
    expected_gradient = gradient(model.base_model, (expected * weights).sum())
    learner = critic.trunk.model.base_model
    actual_gradient = gradient(learner, (actual * weights).sum())
    torch.testing.assert_close(actual_gradient, expected_gradient, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("trunk", ["own", "shared"])
def test_first_values_are_zero_and_their_gradient_is_not(model: PreTrainedModel, trunk: TrunkChoice) -> None:
    critic = Critic.of(Policy(model), trunk)
    values = critic.values(ragged_batch())
    assert not values.any()
    values.sum().backward()
    assert critic.head.weight.grad is not None
    assert critic.head.weight.grad.any()


def test_a_trunk_of_its_own_learns_by_itself(model: PreTrainedModel) -> None:
    batch, policy = ragged_batch(), Policy(model)
    critic = Critic.of(policy, "own")
    assert not {id(p) for p in policy.parameters()} & {id(p) for p in critic.parameters()}
    before = policy.log_probs(batch)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.add_(0.1)
    assert torch.equal(policy.log_probs(batch), before)
    assert critic.values(batch).any()
    assert model.config._attn_implementation != PACKED


def test_a_shared_trunk_adds_a_head_and_nothing_else(model: PreTrainedModel) -> None:
    policy = Policy(model)
    extra = {name for name, p in Critic.of(policy, "shared").named_parameters() if not name.startswith("trunk.")}
    assert extra == {"head.weight", "head.bias"}


@pytest.mark.parametrize("max_tokens", [1, 60])
def test_values_of_micro_batches_are_those_of_the_batch(model: PreTrainedModel, max_tokens: int) -> None:
    batch, critic = ragged_batch(), critic_of(Policy(model))
    actual = values_of(critic, batch, max_tokens)
    assert not actual.requires_grad
    torch.testing.assert_close(actual, critic.values(batch), atol=1e-5, rtol=1e-5)


def test_a_value_depends_on_nothing_that_comes_later(model: PreTrainedModel) -> None:
    batch, critic = ragged_batch(), critic_of(Policy(model))
    expected = critic.values(batch)
    row, column = batch["mask"].nonzero()[7].tolist()
    batch["tokens"][row, column:] = 7
    torch.testing.assert_close(critic.values(batch)[row, : column + 1], expected[row, : column + 1])


def test_a_batch_without_a_sampled_token_has_values_of_zero(model: PreTrainedModel) -> None:
    batch = ragged_batch()
    batch["mask"][:] = False
    assert not critic_of(Policy(model)).values(batch).any()


def test_explained_variance_says_how_much_was_foreseen() -> None:
    mask = torch.tensor([[False, True, True], [True, True, False]])
    returns = torch.tensor([[99.0, 0.0, 1.0], [2.0, 3.0, -99.0]])
    assert explained_variance(returns, returns, mask) == 1.0
    assert explained_variance(returns + 0.5, returns, mask) == 1.0  # a constant is no variance
    assert explained_variance(torch.ones(2, 3), returns, mask) == 0.0
    assert explained_variance(-returns, returns, mask) == pytest.approx(-3.0)
    assert math.isnan(explained_variance(returns, torch.ones(2, 3), mask))
    assert math.isnan(explained_variance(returns, returns, torch.zeros_like(mask)))

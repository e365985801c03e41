"""What a learner's state holds: with it another learner goes on as the first would have, to the bit."""

import copy
from typing import Any

import pytest
import torch
from conftest import random_model
from test_clipped_policy import real_batch
from transformers import PreTrainedModel

from llmgym.errors import AlgorithmError, TrainingError
from llmgym.learn.critic import Critic
from llmgym.learn.kl import AdaptiveKL
from llmgym.learn.learner import Learner
from llmgym.learn.losses import ClippedPolicyLoss, PPOLoss
from llmgym.learn.policy import Policy
from llmgym.models.lora import add_adapters


def plain(model: PreTrainedModel) -> Learner:
    return Learner(ClippedPolicyLoss(Policy(model), kl_coef=0.1), learning_rate=1e-3, warmup_steps=5, decay="linear")


def adapted(model: PreTrainedModel) -> Learner:
    add_adapters(model, rank=4, alpha=8.0)
    return plain(model)


def narrow(model: PreTrainedModel) -> Learner:
    return plain(model.to(torch.bfloat16))


def with_critic(model: PreTrainedModel) -> Learner:
    policy = Policy(model)
    loss = PPOLoss(policy, Critic.of(policy, "own"), kl_coef=0.1)
    rates = {"critic_network": 1e-2}
    return Learner(loss, learning_rate=1e-3, learning_rates=rates, kl=AdaptiveKL(0.1, 0.05, 10))


def steps(one: Learner, batch: Any, count: int) -> list[dict[str, float]]:
    """Take some, with what they need of the reference and a coefficient that is steered."""
    found = []
    for _ in range(count):
        given = batch.copy()
        given["ref_log_probs"] = one.reference.log_probs(given)
        if one.kl is not None:
            one.kl.update(0.2, 4)
            one.loss.kl_coef = one.kl.coefficient
        found.append(one.update(given))
    return found


@pytest.mark.parametrize("make", [plain, adapted, narrow, with_critic])
def test_another_learner_goes_on_as_the_first_would_have(make: Any) -> None:
    batch = real_batch(Policy(random_model("qwen2")))
    batch["state_value"] = torch.zeros(*batch["mask"].shape, 1)[..., 0]
    batch["value_target"] = batch["advantage"].clone()
    first, second = (make(random_model("qwen2")) for _ in range(2))
    first.keep_reference(first.loss.actor_network)
    first.progress = 0.5
    steps(first, batch, 2)
    second.keep_reference(second.loss.actor_network)
    steps(second, batch, 1)  # it has gone another way
    state = copy.deepcopy(first.state_dict())
    expected = steps(first, batch, 2)
    second.load_state_dict(state)
    assert steps(second, batch, 2) == expected
    for one, other in zip(first.loss.parameters(), second.loss.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_state_of_another_learner_is_refused() -> None:
    one, other = plain(random_model("qwen2")), adapted(random_model("qwen2"))
    with pytest.raises(TrainingError, match="Expected the state of a learner of the same parameters"):
        one.load_state_dict(other.state_dict())
    again = plain(random_model("qwen2"))
    again.keep_reference(again.loss.actor_network)
    with pytest.raises(TrainingError, match="with a reference where this one has one"):
        one.load_state_dict(again.state_dict())


def test_a_reference_that_nobody_asked_to_keep_is_refused() -> None:
    with pytest.raises(AlgorithmError, match=r"No reference is kept: expected .* needs_reference = True"):
        _ = plain(random_model("qwen2")).reference


def test_the_reference_is_that_of_the_beginning() -> None:
    one = plain(random_model("qwen2"))
    policy = one.loss.actor_network
    one.keep_reference(policy)
    first = one.reference
    with torch.no_grad():
        next(policy.parameters()).add_(1.0)
    one.keep_reference(policy)
    assert one.reference is first


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state.pop("progress"), "one without progress"),
        (lambda state: state["parameters"].update({k: v[:1] for k, v in state["parameters"].items()}), "got others: "),
        (lambda state: state.update(reference=[w[..., :1] for w in state["reference"]]), "got others: reference 0"),
        (lambda state: state.update(kl_coefficient=0.5), "a KL coefficient where this one has one"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_before_anything_is_changed(spoil: Any, message: str) -> None:
    one = plain(random_model("qwen2"))
    one.keep_reference(one.loss.actor_network)
    before = copy.deepcopy(one.state_dict())
    state = copy.deepcopy(before)
    spoil(state)
    with pytest.raises(TrainingError, match=message):
        one.load_state_dict(state)
    torch.testing.assert_close(one.state_dict()["parameters"], before["parameters"], rtol=0, atol=0)


def test_a_state_that_was_loaded_stays_as_it_is_while_the_learner_goes_on() -> None:
    batch = real_batch(Policy(random_model("qwen2")))
    first, second = plain(random_model("qwen2")), plain(random_model("qwen2"))
    for one in (first, second):
        one.keep_reference(one.loss.actor_network)
    steps(first, batch, 2)
    state = copy.deepcopy(first.state_dict())
    kept = copy.deepcopy(state)
    second.load_state_dict(state)
    steps(second, batch, 1)
    torch.testing.assert_close(state["optimiser"], kept["optimiser"], rtol=0, atol=0)

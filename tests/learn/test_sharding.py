"""A sharded learner learns what a whole one learns; with one process here, and with several in test_ranks.py."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import random_model
from tensordict import TensorDict
from test_clipped_policy import real_batch
from torch.distributed import destroy_process_group, init_process_group
from transformers import PreTrainedModel

from llmgym.learn import sharding
from llmgym.learn.learner import Learner
from llmgym.learn.losses import ClippedPolicyLoss, KTOLoss, SPPOLoss
from llmgym.learn.needs import training_needs
from llmgym.learn.policy import Policy
from llmgym.learn.reference import log_probs_of
from llmgym.models.lora import add_adapters, merged_weights
from llmgym.models.shards import in_shards


@pytest.fixture(autouse=True)
def process_group(tmp_path: Path) -> Iterator[None]:
    init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    destroy_process_group()


def sharded(loss: torch.nn.Module) -> Any:
    sharding._shard(loss, "cpu")
    assert all(map(in_shards, loss.parameters()))
    return loss


def learner(loss: Any, **options: Any) -> Learner:
    return Learner(loss, **{"learning_rate": 1e-3, "micro_batch_tokens": 80, **options})


def compare(model: PreTrainedModel, other: PreTrainedModel) -> None:
    for (name, whole), (same, parts) in zip(merged_weights(model), merged_weights(other), strict=True):
        assert name == same
        torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("loss_class", [ClippedPolicyLoss, KTOLoss, SPPOLoss])
@pytest.mark.parametrize("tokens", [1, 80, 10**6])
def test_updates_are_those_of_a_whole_model_also_where_nobody_said_anything(loss_class: Any, tokens: int) -> None:
    models = [random_model("llama"), random_model("llama")]
    batch = real_batch(Policy(models[0]))
    batch["mask"][1] = batch["mask"][-1] = False
    count = torch.arange(len(batch))
    batch["desirable"], batch["win_rate"] = count % 2 == 0, count / len(batch)
    batch["ref_log_probs"] = (batch["log_probs"] - 0.1) * batch["mask"]
    batch["reference_point"] = torch.full((len(batch),), 0.1)
    one, other = (loss_class(Policy(model)) for model in models)
    learners = learner(one, micro_batch_tokens=tokens), learner(sharded(other), micro_batch_tokens=tokens)
    for _ in range(2):
        expected, found = (each.update(batch.copy()) for each in learners)
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    compare(*models)


@pytest.mark.parametrize("adapted", [False, True])
def test_a_reference_stays_where_it_was(adapted: bool) -> None:
    model = random_model("qwen2")
    if adapted:
        add_adapters(model, 4, 8.0)
    policy = Policy(model)
    batch = real_batch(policy)
    expected = log_probs_of(policy, batch, 80)
    trains = learner(sharded(ClippedPolicyLoss(policy)), learning_rate=1e-2)
    trains.keep_reference(policy)
    for _ in range(2):
        trains.update(batch.copy())
        before = log_probs_of(policy, batch, 80)
        assert (before - expected).abs().max() > 1e-3
        torch.testing.assert_close(trains.reference.log_probs(batch), expected, atol=1e-4, rtol=0)
        assert torch.equal(log_probs_of(policy, batch, 80), before)


def test_a_forward_pass_leaves_nothing_together_even_of_a_model_whose_layers_are_of_no_known_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sharding, "GradientCheckpointingLayer", type("Unknown", (), {}))
    policy = Policy(random_model("llama"))
    batch = real_batch(policy)
    trains = learner(sharded(ClippedPolicyLoss(policy)))
    trains.keep_reference(policy)
    log_probs_of(policy, batch, 80)
    assert all(map(in_shards, policy.parameters()))
    trains.update(batch)
    now = log_probs_of(policy, batch, 80)
    trains.reference.log_probs(batch)
    assert torch.equal(log_probs_of(policy, batch, 80), now)


def test_a_state_goes_from_a_sharded_learner_to_a_whole_one_and_back() -> None:
    models = [random_model("qwen2") for _ in range(3)]
    batch = real_batch(Policy(models[0]))
    one, two, three = (ClippedPolicyLoss(Policy(model)) for model in models)
    first, second = learner(sharded(one)), learner(two)
    first.update(batch.copy())
    second.load_state_dict(sharding.gathered(first.state_dict()))
    first.update(batch.copy()), second.update(batch.copy())
    compare(models[1], models[0])
    third = learner(sharded(three))
    third.load_state_dict(copy.deepcopy(second.state_dict()))
    third.update(batch.copy()), second.update(batch.copy())
    compare(models[1], models[2])


def test_what_a_layer_puts_together_is_no_activation() -> None:
    found = []
    for shard in (False, True):
        policy = Policy(random_model("llama"))
        loss = ClippedPolicyLoss(policy)
        batch: TensorDict = real_batch(policy)
        if shard:
            sharded(loss)
        needs = training_needs(
            loss,
            policy=policy,
            run=lambda policy=policy, batch=batch: policy.log_probs(batch).sum(),  # type: ignore[misc]
            tokens=100,
            batch_tokens=1000,
            reference=True,
        )
        found.append(needs.to_come)
    assert found[0] == found[1]

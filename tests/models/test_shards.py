"""Parameters in shards are refused in words, wherever a model comes in."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import random_model
from tensordict import TensorDict
from torch import nn
from torch.distributed import destroy_process_group, init_process_group
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from llmgym.engines.local.decoders import FusedDecoder, TransformersDecoder
from llmgym.engines.local.engine import LocalEngine
from llmgym.errors import ModelError
from llmgym.learn.policy import Policy
from llmgym.learn.reference import Reference
from llmgym.learn.reward_model import RewardModel
from llmgym.models.shards import check_whole

REFUSAL = r"^Expected a model whose parameters are whole, got 'model\.\S+' in shards, as a DTensor\.$"


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    destroy_process_group()


def shard(model: PreTrainedModel) -> PreTrainedModel:
    """Shard the queries' weights of the first layer, over the one process that there is."""
    projection = model.model.layers[0].self_attn.q_proj
    mesh = init_device_mesh("cpu", (1,))
    projection.weight = nn.Parameter(distribute_tensor(projection.weight.detach(), mesh, [Shard(0)]))
    assert isinstance(projection.weight, DTensor)
    return model


@pytest.mark.parametrize("taker", [LocalEngine, TransformersDecoder, Policy])
@pytest.mark.usefixtures("process_group")
def test_a_model_in_shards_is_neither_sampled_nor_trained(taker: type) -> None:
    model = shard(random_model("llama"))
    with pytest.raises(ModelError, match=REFUSAL):
        taker(model)


@pytest.mark.usefixtures("process_group")
def test_a_reward_model_in_shards_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    model = AutoModelForSequenceClassification.from_config(
        type(random_model("llama").config)(**{**random_model("llama").config.to_dict(), "num_labels": 1})
    )
    with pytest.raises(ModelError, match=REFUSAL):
        RewardModel(shard(model), tokenizer)


@pytest.mark.usefixtures("process_group")
def test_a_model_that_fsdp_wraps_is_refused() -> None:
    model = random_model("llama")
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(ModelError, match=REFUSAL):
        Policy(model)


@pytest.mark.usefixtures("process_group")
def test_a_model_that_becomes_sharded_is_no_longer_sampled() -> None:
    model = random_model("llama")
    decoder = FusedDecoder(model)
    shard(model)
    with pytest.raises(ModelError, match=REFUSAL):
        decoder.refresh()


def test_a_whole_model_is_taken() -> None:
    check_whole(random_model("llama"))


def test_a_reference_leaves_its_policy_where_and_as_it_is() -> None:
    """An embedded engine reads the same memory."""
    policy = Policy(random_model("qwen2"))
    reference = Reference(policy, micro_batch_tokens=50)
    tokens, mask = torch.arange(3, 40)[None], torch.arange(37)[None] > 9
    batch = TensorDict(
        {"tokens": tokens, "mask": mask, "length": torch.tensor([37]), "prompt_length": torch.tensor([10])}, [1]
    )
    with torch.no_grad():
        expected = copy.deepcopy(policy).log_probs(batch)
        for parameter in policy.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    before = [(parameter, parameter.data_ptr(), parameter.detach().clone()) for parameter in policy.parameters()]
    torch.testing.assert_close(reference.log_probs(batch), expected)
    for parameter, (same, place, value) in zip(policy.parameters(), before, strict=True):
        assert parameter is same
        assert parameter.data_ptr() == place
        assert torch.equal(parameter, value)
    assert not torch.allclose(policy.log_probs(batch), expected)
    reference.refresh()
    torch.testing.assert_close(reference.log_probs(batch), policy.log_probs(batch).detach())

"""A model with another attention shares the parameters of its original and leaves the original alone."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import random_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, Phi3Config, PreTrainedModel

from llmgym.learn.policy import Policy
from llmgym.models.attention import attending

TOKENS = torch.arange(3, 40)[None]


def batch() -> dict[str, Tensor]:
    mask = torch.arange(TOKENS.shape[1])[None] > 9
    return {"tokens": TOKENS, "mask": mask, "prompt_length": torch.tensor([10])}


def configurations(model: PreTrainedModel) -> set[str]:
    return {module.config._attn_implementation for module in model.modules() if hasattr(module, "config")}


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@torch.no_grad()
def test_in_the_middle_of_a_packed_pass_the_model_itself_runs_as_before(
    model: PreTrainedModel, gradient_checkpointing: bool
) -> None:
    policy = Policy(model, gradient_checkpointing=gradient_checkpointing)
    expected, undisturbed, before = model(TOKENS).logits, policy.log_probs(batch()), configurations(model)
    nested: list[Tensor] = []

    def inside(*_: Any) -> None:
        if not nested:
            nested.append(TOKENS)
            nested[0] = model(TOKENS).logits
            assert configurations(model) == before

    handle = model.base_model.layers[0].mlp.register_forward_hook(inside)
    disturbed = policy.log_probs(batch())
    handle.remove()
    assert torch.equal(nested[0], expected)
    assert torch.equal(disturbed, undisturbed)


def test_a_learner_and_the_model_itself_run_in_two_threads(model: PreTrainedModel) -> None:
    policy = Policy(model)
    expected = model(TOKENS).logits.detach(), policy.log_probs(batch()).detach()
    found: list[bool] = []

    def learn() -> None:
        found.extend(torch.equal(policy.log_probs(batch()), expected[1]) for _ in range(20))

    thread = threading.Thread(target=learn)
    thread.start()
    while thread.is_alive():
        assert torch.equal(model(TOKENS).logits, expected[0])
    thread.join()
    assert found == [True] * 20


def test_a_model_is_saved_and_generates_as_before(model: PreTrainedModel, tmp_path: Path) -> None:
    before = model.generate(TOKENS, do_sample=False, max_new_tokens=8)
    model.save_pretrained(tmp_path / "before")
    Policy(model).log_probs(batch())
    model.save_pretrained(tmp_path / "after")
    assert torch.equal(model.generate(TOKENS, do_sample=False, max_new_tokens=8), before)
    files = [(tmp_path / when / "config.json").read_text() for when in ("before", "after")]
    assert files[0] == files[1]
    assert "llmgym" not in files[1]
    assert AutoConfig.from_pretrained(tmp_path / "after")._attn_implementation is None


def test_the_other_model_takes_no_memory_and_follows_the_parameters_of_the_first(model: PreTrainedModel) -> None:
    other = attending(model, "sdpa")  # whose softmax is as wide as the weights
    assert {id(p) for p in other.parameters()} == {id(p) for p in model.parameters()}
    assert {b.data_ptr() for b in other.buffers()} == {b.data_ptr() for b in model.buffers()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    model.double()
    assert other(TOKENS).logits.dtype == torch.float64
    assert torch.equal(other(TOKENS).logits, model(TOKENS).logits)


def test_buffers_move_with_the_model() -> None:
    model = random_model("llama")
    other = attending(model, "eager")
    model.to("meta")
    assert {tensor.device.type for tensor in (*other.parameters(), *other.buffers())} == {"meta"}


def test_the_other_model_applies_no_dropout_though_the_first_is_in_training() -> None:
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        resid_pdrop=0.5, embd_pdrop=0.5, attention_dropout=0.5, pad_token_id=0,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    expected = model.eval()(TOKENS).logits
    model.train()
    other = attending(model, "eager")
    torch.testing.assert_close(other(TOKENS).logits, expected)
    assert all(module.training for module in model.modules())

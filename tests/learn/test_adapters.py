"""Adapters: they alone learn, and what samples has them merged."""

import copy
from pathlib import Path

import pytest
import torch
from conftest import random_model
from test_clipped_policy import real_batch
from transformers import AutoModelForCausalLM, Glm4MoeConfig, GPT2Config, MixtralConfig, PhimoeConfig, Qwen3MoeConfig

from llmgym.demo import TINY_PATH
from llmgym.errors import ModelError
from llmgym.learn.checkpoint import save_checkpoint
from llmgym.learn.learner import Learner
from llmgym.learn.losses import ClippedPolicyLoss
from llmgym.learn.policy import Policy
from llmgym.learn.reference import Reference
from llmgym.models.causal_lm import load_causal_lm, load_reward_model
from llmgym.models.lora import add_adapters, merged_weights, plain_copy


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_merged_weights_are_those_of_a_plain_model_that_says_the_same(family: str) -> None:
    model = random_model(family)
    plain = copy.deepcopy(model)
    add_adapters(model, rank=4, alpha=8.0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    merged = dict(merged_weights(model))
    assert merged.keys() == dict(plain.named_parameters()).keys()
    tokens = torch.randint(300, (2, 9), generator=torch.Generator().manual_seed(1))
    assert not torch.allclose(plain(tokens).logits, model(tokens).logits, atol=1e-2)
    copied = plain_copy(model, torch.float32)
    torch.testing.assert_close(copied(tokens).logits, model(tokens).logits, atol=1e-3, rtol=1e-4)


def test_a_copy_of_another_type_says_what_transformers_loads_in_that_type(tmp_path: Path) -> None:
    model = random_model("llama", max_position_embeddings=2048)
    model.save_pretrained(tmp_path)
    expected = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    copied = plain_copy(model, torch.bfloat16)
    tokens = torch.randint(300, (1, 700), generator=torch.Generator().manual_seed(1))  # frequencies would round
    torch.testing.assert_close(copied(tokens).logits, expected(tokens).logits, atol=0, rtol=0)
    assert model.dtype == torch.float32
    assert copied.lm_head.weight.data_ptr() != model.lm_head.weight.data_ptr()


def test_adapters_of_a_model_in_bfloat16_learn_in_float32() -> None:
    model = random_model("qwen2").to(torch.bfloat16)
    add_adapters(model, rank=4, alpha=8.0)
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    policy = Policy(model)
    batch = real_batch(policy)
    learner = Learner(ClippedPolicyLoss(policy), learning_rate=1e-4)
    assert learner.update(batch)["grad_norm"] > 0
    assert plain_copy(model, model.dtype).dtype == torch.bfloat16


def test_a_copy_holds_the_adapted_weights_once_and_no_adapter() -> None:
    model = random_model("qwen2", tie_word_embeddings=True)
    add_adapters(model, rank=4, alpha=8.0)
    copied = plain_copy(model, torch.bfloat16)
    assert {parameter.dtype for parameter in copied.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    assert copied.lm_head.weight is copied.model.embed_tokens.weight
    assert not any("lora" in name or "base_layer" in name for name, _ in copied.named_modules())
    assert model.peft_config


@pytest.mark.parametrize("config_class", [MixtralConfig, Qwen3MoeConfig, PhimoeConfig, Glm4MoeConfig, GPT2Config])
def test_adapters_of_any_architecture_merge_into_weights_that_say_the_same(config_class: type) -> None:
    torch.manual_seed(0)
    experts = {"num_experts_per_tok": 2, "num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4}
    shape = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    config = config_class(
        num_attention_heads=4, num_key_value_heads=2, moe_intermediate_size=16, pad_token_id=0, **shape, **experts
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    plain = copy.deepcopy(model)
    add_adapters(model, rank=4, alpha=8.0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    tokens = torch.randint(1, 300, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert not torch.allclose(plain(tokens).logits, model(tokens).logits, atol=1e-2)
        plain = plain_copy(model, torch.float32)
        torch.testing.assert_close(plain(tokens).logits, model(tokens).logits, atol=1e-3, rtol=1e-4)
    Policy(model)


def test_a_model_without_adapters_has_its_own_weights() -> None:
    model = random_model("qwen2")
    assert dict(merged_weights(model)).keys() == dict(model.named_parameters()).keys()


def test_only_adapters_learn_and_the_reference_is_the_model_with_the_adapters_off() -> None:
    model = random_model("qwen2")
    add_adapters(model, rank=4, alpha=8.0)
    policy = Policy(model)
    reference = Reference(policy, micro_batch_tokens=10**6)
    batch = real_batch(policy)
    frozen = {name: value.clone() for name, value in model.state_dict().items() if "lora_" not in name}
    learner = Learner(ClippedPolicyLoss(policy), learning_rate=1e-2)
    for _ in range(3):
        learner.update(batch)
    for name, value in frozen.items():
        torch.testing.assert_close(model.state_dict()[name], value, atol=0, rtol=0)
    with torch.no_grad():
        learnt = policy.log_probs(batch)
        model.disable_adapters()
        without = policy.log_probs(batch)
        model.enable_adapters()
    assert (learnt - without).abs().max() > 1e-3
    torch.testing.assert_close(reference.log_probs(batch), without, atol=1e-6, rtol=0)


def test_the_head_of_a_reward_model_learns_whole_and_is_merged_with_the_rest() -> None:
    model, _ = load_reward_model(TINY_PATH, fresh_head=True)
    plain = copy.deepcopy(model)
    add_adapters(model, rank=4, alpha=8.0)
    learning = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert [name for name in learning if "lora_" not in name] == ["score.weight"]
    with torch.no_grad():
        for value in learning.values():
            value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(0)))
    copied = plain_copy(model, torch.float32)
    tokens = torch.arange(5, 20)[None]
    assert copied.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(copied(tokens).logits, model(tokens).logits, atol=1e-4, rtol=1e-4)


def test_without_peft_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"llmgym-rl\[lora\]"):
        add_adapters(random_model("qwen2"), rank=4, alpha=8.0)


def test_a_checkpoint_of_adapters_loads_as_the_merged_model_and_can_take_new_ones(tmp_path: Path) -> None:
    model, tokenizer = load_causal_lm(TINY_PATH)
    add_adapters(model, rank=4, alpha=8.0)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(0)))
    save_checkpoint(tmp_path / "checkpoint", model, tokenizer)
    loaded, _ = load_causal_lm(tmp_path / "checkpoint")
    tokens = torch.arange(5, 20)[None]
    torch.testing.assert_close(loaded(tokens).logits, model(tokens).logits, atol=1e-4, rtol=1e-4)
    assert all(value.requires_grad for value in loaded.parameters())
    add_adapters(loaded, rank=2, alpha=8.0)

"""A self-test refuses what computes something else, and nothing that only rounds."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import random_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma2Config,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MixtralConfig,
    PhiConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
)

from llmgym.engines.local.engine import LocalEngine
from llmgym.engines.local.forward_pass import ForwardPass
from llmgym.errors import ModelError
from llmgym.learn import packed_attention, trunk
from llmgym.learn.policy import Policy
from llmgym.learn.reward_model import RewardModel
from llmgym.models.self_test import float64

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
IDS = {"vocab_size": 300, "num_key_value_heads": 2, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}


def windowed(kind: Any = AutoModelForCausalLM, *, dtype: torch.dtype) -> PreTrainedModel:
    """A model whose tokens see 8 tokens."""
    torch.manual_seed(0)
    model = kind.from_config(MistralConfig(**SHAPE, **IDS, sliding_window=8, num_labels=1))
    return model.to(dtype).eval()


def capped(*, dtype: torch.dtype) -> PreTrainedModel:
    """A model with a bound of its attention scores that they reach."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        Gemma2Config(**SHAPE, **IDS, head_dim=16, sliding_window=8, attn_logit_softcapping=0.01)
    )
    return model.to(dtype).eval()


def rounding(kind: str, *, dtype: torch.dtype) -> PreTrainedModel:
    """A model whose logits the last bits of a number move by far more than a thousandth."""
    model = random_model(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(16.0)
    return model.to(dtype)


@DTYPES
@pytest.mark.parametrize("config_class", [MixtralConfig, Qwen3MoeConfig])
def test_a_sound_mixture_of_experts_is_accepted(config_class: Any, dtype: torch.dtype) -> None:
    experts = {"num_experts_per_tok": 2, "num_local_experts": 4, "num_experts": 4, "moe_intermediate_size": 16}
    model = AutoModelForCausalLM.from_config(config_class(**SHAPE, **IDS, **experts)).to(dtype).eval()
    Policy(model)
    LocalEngine(model, context_length=512)


@DTYPES
@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_a_sound_model_is_accepted_however_it_rounds(
    family: str, dtype: torch.dtype, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = rounding(family, dtype=dtype)
    tokens = torch.arange(3, 40)[None]
    with torch.no_grad():
        rounded = model(tokens).logits.double()
        exact = rounding(family, dtype=dtype).double()(tokens).logits
    assert (rounded - exact).abs().max() > (1e-3 if dtype == torch.float32 else 0.1)
    Policy(model)
    LocalEngine(model)
    config = type(model.config)(**{**model.config.to_dict(), "num_labels": 1})
    RewardModel(AutoModelForSequenceClassification.from_config(config).to(dtype).eval(), tokenizer)


Fault = Callable[[float, int | None, float | None], tuple[float, int | None, float | None]]


def test_tokens_that_a_head_rules_out_are_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    model = AutoModelForCausalLM.from_config(PhiConfig(**SHAPE, **IDS)).eval()
    with torch.no_grad():
        model.lm_head.bias[7] = -torch.inf
    Policy(model)
    LocalEngine(model, context_length=512)
    plant_in_packed_attention(lambda scaling, window, softcap: (1.01 * scaling, window, softcap), monkeypatch)
    with pytest.raises(ModelError, match="differed from the model's own by"):
        Policy(model)


FAULTS: dict[str, tuple[Callable[..., PreTrainedModel], Fault]] = {
    "no window": (windowed, lambda scaling, window, softcap: (scaling, None, softcap)),
    "another window": (windowed, lambda scaling, window, softcap: (scaling, 9, softcap)),
    "no softcap": (capped, lambda scaling, window, softcap: (scaling, window, None)),
    "another scale": (windowed, lambda scaling, window, softcap: (1.01 * scaling, window, softcap)),
}


def plant_in_packed_attention(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = packed_attention.in_blocks

    def faulty(query: Any, key: Any, value: Any, scaling: float, segments: Any, *bounds: Any) -> torch.Tensor:
        scaling, window, softcap = fault(scaling, *bounds)
        return sound(query, key, value, scaling, segments, window, softcap)

    monkeypatch.setattr(packed_attention, "in_blocks", faulty)


def plant_in_cached_attention(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = ForwardPass.attend

    def faulty(
        self: ForwardPass, layer: int, query: Any, keys: Any, values: Any, scaling: float, *bounds: Any
    ) -> torch.Tensor:
        return sound(self, layer, query, keys, values, *fault(scaling, *(*bounds, None)[:2]))

    monkeypatch.setattr(ForwardPass, "attend", faulty)


@DTYPES
@pytest.mark.parametrize("name", FAULTS)
def test_a_policy_that_attends_differently_is_refused(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, fault = FAULTS[name]
    Policy(make(dtype=dtype))
    plant_in_packed_attention(fault, monkeypatch)
    with pytest.raises(ModelError, match=r"cannot be trained on packed rows: .* differed from the model's own by"):
        Policy(make(dtype=dtype))


@DTYPES
@pytest.mark.parametrize("name", FAULTS)
def test_an_engine_that_attends_differently_is_refused(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, fault = FAULTS[name]
    LocalEngine(make(dtype=dtype))
    plant_in_cached_attention(fault, monkeypatch)
    with pytest.raises(ModelError, match=r"cannot run models of type .* differed from the model's own by"):
        LocalEngine(make(dtype=dtype))


@DTYPES
@pytest.mark.parametrize("make", [Policy, LocalEngine])
def test_of_a_model_that_computes_no_numbers_the_weight_is_named_that_is_none(
    make: Callable[[PreTrainedModel], Any], dtype: torch.dtype
) -> None:
    model = windowed(dtype=dtype)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 5] = torch.nan
    with pytest.raises(ModelError, match=r"are not numbers: expected finite weights, but model\.layers\.1\.mlp\.down"):
        make(model)


@DTYPES
def test_a_reward_model_that_attends_differently_is_refused(
    dtype: torch.dtype, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = windowed(AutoModelForSequenceClassification, dtype=dtype)
    RewardModel(model, tokenizer)
    plant_in_packed_attention(FAULTS["another window"][1], monkeypatch)
    with pytest.raises(ModelError, match=r"cannot serve as reward models: .* differed from the model's own by"):
        RewardModel(model, tokenizer)


@DTYPES
def test_positions_that_are_off_are_noticed(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    model, pack = random_model("llama").to(dtype), trunk.pack

    def stretched(*args: Any) -> Any:
        packed = pack(*args)
        return dataclasses.replace(packed, positions=packed.positions + (packed.positions > 9))

    monkeypatch.setattr(trunk, "pack", stretched)
    with pytest.raises(ModelError, match="differed from the model's own by"):
        Policy(model)


@DTYPES
def test_in_float64_a_model_computes_what_its_copy_in_float64_does(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=32, n_layer=3, n_head=4)).to(dtype).eval()
    tokens = torch.arange(3, 60)[None]
    with torch.no_grad():
        with float64():
            actual = model(tokens).logits
        native = model(tokens).logits
        weights = [parameter.dtype for parameter in model.parameters()]
        expected = model.double()(tokens).logits
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)
    assert native.dtype == dtype
    assert set(weights) == {dtype}
    assert torch.get_default_dtype() == torch.float32

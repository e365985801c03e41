"""A model directory is data: whoever wrote it, it loads and works, or is refused in a sentence."""

import importlib.util
import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from llmgym.errors import ModelError
from llmgym.learn.reward_model import RewardModel
from llmgym.models.causal_lm import load_causal_lm, stop_token_ids_of
from llmgym.models.context import longest_context
from llmgym.models.lora import add_adapters
from llmgym.rollout.chat import ChatCodec
from llmgym.types import Message
from tests.conftest import random_model
from tests.models.hostile_models import (
    RAN,
    Spoil,
    code_in_models,
    set_value,
    spoilt_adapters,
    spoilt_models,
    with_code,
    write_pickle,
)

pytestmark = pytest.mark.hostile

CHAT = [Message("user", "hello"), Message("assistant", "yes"), Message("user", "why?")]
SPOILT, ADAPTERS, CODE = (dict(kind) for kind in (spoilt_models(0, chances=30), spoilt_adapters(), code_in_models()))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A model with all the files that can be spoilt."""
    path = tmp_path_factory.mktemp("sound")
    random_model("llama").save_pretrained(path)
    tokenizer.save_pretrained(path)
    (path / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    template = path / "chat_template.jinja"
    set_value(path / "tokenizer_config.json", ["chat_template"], template.read_text())
    template.unlink()
    return path


@pytest.fixture
def model(sound: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(sound, tmp_path / "model"))


def use(path: Path) -> str:
    """Load a model and let it read a conversation; return why that is refused, or nothing."""
    try:
        model, tokenizer = load_causal_lm(path)
        codec = ChatCodec(tokenizer, stop_token_ids_of(model))
        tokens = codec.prompt(CHAT)
        assert longest_context(model.config) >= len(tokens)
        assert model(torch.tensor([tokens])).logits.isfinite().all()
    except ModelError as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
def test_a_spoilt_model_is_refused_in_a_sentence_or_works(
    spoil: Spoil, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil(model)
    refusal = use(model)
    assert not refusal or str(model) in refusal
    assert len(refusal) < 800
    assert RAN not in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs peft")
@pytest.mark.parametrize("spoil", ADAPTERS.values(), ids=ADAPTERS.keys())
def test_spoilt_adapters_are_refused_in_a_sentence_or_work(
    spoil: Spoil, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    adapted, tokenizer = load_causal_lm(model)
    add_adapters(adapted, rank=2, alpha=4.0)
    adapted.save_pretrained(tmp_path / "adapters")
    tokenizer.save_pretrained(tmp_path / "adapters")
    assert use(tmp_path / "adapters") == ""
    spoil(tmp_path / "adapters")
    refusal = use(tmp_path / "adapters")
    assert not refusal or str(tmp_path) in refusal
    assert RAN not in capfd.readouterr().out


@pytest.mark.parametrize("spoil", CODE.values(), ids=CODE.keys())
def test_code_beside_a_model_is_not_run_whatever_the_keyboard_says(
    spoil: Spoil, model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil(model)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 1000))
    with pytest.raises(ModelError, match="it brings code of its own, which is never run"):
        load_causal_lm(model)
    said = capfd.readouterr()
    assert RAN not in said.out
    assert "[y/N]" not in said.out


def test_a_kind_of_model_that_transformers_has_is_loaded_without_the_code_that_is_beside_it(
    model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with_code(model, "config.json", {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}, {})
    assert use(model) == ""
    assert RAN not in capfd.readouterr().out


def test_pickled_weights_are_refused_with_a_way_to_convert_them(model: Path) -> None:
    (model / "model.safetensors").unlink()
    write_pickle(model / "pytorch_model.bin")
    for load in (load_causal_lm, RewardModel.load):
        with pytest.raises(ModelError, match=r"are pickled \(pytorch_model.bin\).*`save_pretrained\(other_path\)`"):
            load(model)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("hidden_size", 10**9, "hidden_size to be an integer from 1 to 1,048,576, got 1000000000"),
        ("vocab_size", 10**7, "describes 640,023,264 parameters, expected about as many as its weights have: 42,464"),
        ("num_hidden_layers", 4000, "describes 4,000 layers, its weights are 30"),
        ("max_position_embeddings", 0, "max_position_embeddings to be an integer from 1 .* got 0"),
        ("rms_norm_eps", float("nan"), "expected a number for rms_norm_eps, got NaN"),
    ],
)
def test_a_configuration_that_no_model_has_is_refused_by_its_value(
    model: Path, key: str, value: object, expected: str
) -> None:
    set_value(model / "config.json", [key], value)
    with pytest.raises(ModelError, match=f"config.json.*{expected}"):
        load_causal_lm(model)

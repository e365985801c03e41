"""What several tests share: tiny random models with a byte-level tokenizer."""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test asks a hub

import pytest
import torch
from hypothesis import HealthCheck, settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from llmgym.demo.tiny import CHATML
from tests.canary_keys import pytest_sessionfinish, pytest_terminal_summary  # noqa: F401  # pytest calls them

# How long an example takes is up to the machine.
settings.register_profile("llmgym", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("llmgym")

BUSY = ("tests/train/test_ranks.py", "tests/train/test_ray_rollouts.py")
"""Files whose tests keep several processes busy. Side by side they would slow each other down many times over."""

collect_ignore = ["sglang_cpu"]  # stand-ins for GPU libraries: on the path of SGLang's own environment only


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each file to one process, as ``--dist loadfile`` does anyway, and those that are busy to the same."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class BusyOnesInTurn(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return "busy" if file in BUSY else file

    return BusyOnesInTurn(config, log)


@pytest.fixture(scope="session")
def real_model() -> Path:
    """The directory of a real pretrained model, in float32."""
    if "LLMGYM_REAL_MODEL" not in os.environ:
        pytest.skip("needs a real model: make test-real")
    return Path(os.environ["LLMGYM_REAL_MODEL"])


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are bytes, with ChatML."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHATML,
    )


def random_model(family: str, **overrides: int) -> PreTrainedModel:
    """A tiny model with random weights, large enough that its logits differ visibly."""
    config_class, model_class = {
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "llama": (LlamaConfig, LlamaForCausalLM),
        "mistral": (MistralConfig, MistralForCausalLM),
        "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    }[family]
    options = {
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    model = model_class(config_class(**{**options, **overrides}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    return model.eval()


@pytest.fixture(params=["qwen2", "llama"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A fresh tiny random model of each family."""
    return random_model(request.param)

"""Which architectures llmgym runs and trains: every decoder-only one that transformers has, tried.

``python -m llmgym.compat`` makes a small model of each with random weights, and compares what llmgym computes
with transformers' own forward pass, in float64, over each conversation alone. The conversations are longer than every
window, and as long as a context may be whose rotary frequencies would switch.
"""

import copy
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from llmgym.config.sections import Sampling
from llmgym.demo import TINY_PATH
from llmgym.engines.base import GenerationRequest
from llmgym.engines.local.engine import LocalEngine
from llmgym.errors import ModelError
from llmgym.learn.policy import Policy
from llmgym.learn.reward_model import RewardModel
from llmgym.models.causal_lm import find_model, load_tokenizer
from llmgym.models.context import longest_context, rope_switch
from llmgym.models.lora import add_adapters, plain_copy
from llmgym.models.pretrained import pretrained

ASPECTS = "engine", "policy", "gradient checkpointing", "reward model", "checkpoint", "LoRA"

_EXACT, _EXACT_IN_CACHE = 1e-4, 1e-3  # of what is of the size of 1; transformers normalises in float32, caches are so

# What transformers also lists as causal: encoders, decoders that need an encoder, and models of more than text, the
# text parts of which are listed by themselves.
_NO_DECODER_ONLY = frozenset(
    """
    bart bert bert-generation big_bird bigbird_pegasus blenderbot blenderbot-small blt camembert data2vec-text electra
    emu3 ernie fuyu gemma3 gemma3n gemma4 gemma4_assistant gemma4_unified gemma4_unified_assistant git got_ocr2 llama4
    marian mbart megatron-bert mllama moshi musicgen musicgen_melody mvp pegasus phi4_multimodal plbart prophetnet
    qwen3_5 qwen3_5_moe reformer rembert roberta roberta-prelayernorm roc_bert roformer trocr whisper xlm xlm-roberta
    xlm-roberta-xl xlnet xmod
    """.split()  # noqa: SIM905  # as a list they are a page
)

_SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "embed_dim", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "intermediate_size_mlp"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 128),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "window_size", "rotary_dim", "index_topk"), 8),
    **dict.fromkeys(("head_dim", "qk_nope_head_dim", "v_head_dim", "index_head_dim"), 16),
    **dict.fromkeys(("n_group", "topk_group", "bos_token_id"), 1),
    **dict.fromkeys(("num_key_value_heads", "index_n_heads", "eos_token_id"), 2),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), 300),
    "hidden_size_per_layer_input": 8,
    "pad_token_id": 0,
    "qk_rope_head_dim": 8,
}

_LATENT = {"head_dim": 8, "num_key_value_heads": 4}
_CONVOLUTIONS = {"layer_types": ["conv", "full_attention"] * 2}
_WINDOWS = {"use_sliding_window": True, "max_window_layers": 2}
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8}
_SPECIAL: dict[str, dict[str, Any]] = {
    "bamba": _MAMBA,
    "cpmant": {"dim_head": 8, "dim_ff": 48},
    "ctrl": {"dff": 48},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 32, "hidden_size": 32},
    },
    "deepseek_v2": {**_LATENT, "topk_method": "greedy"},
    "deepseek_v3": _LATENT,
    "deepseek_v32": _LATENT,
    "dots1": {"n_shared_experts": 1, "n_routed_experts": 4, "first_k_dense_replace": 1},
    "falcon_h1": {**_MAMBA, "mamba_d_ssm": 64},
    "gemma3_text": {"num_hidden_layers": 6},
    "gemma3n_text": {
        "num_hidden_layers": 10,
        "num_kv_shared_layers": 4,
        "layer_types": [*["sliding_attention"] * 4, "full_attention"] * 2,
        "laurel_rank": 4,
        "activation_sparsity_pattern": [0.0] * 10,
        "intermediate_size": [48] * 10,
    },
    "gemma4_text": {"global_head_dim": 32},
    "gemma4_unified_text": {"global_head_dim": 32},
    "glm4_moe_lite": _LATENT,
    "glm_moe_dsa": _LATENT,
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": _MAMBA,
    "helium": {"head_dim": 8},
    "lfm2": _CONVOLUTIONS,
    "lfm2_moe": {**_CONVOLUTIONS, "num_dense_layers": 1},
    "longcat_flash": _LATENT,
    "mamba2": {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1},
    "qwen2": _WINDOWS,
    "qwen2_moe": _WINDOWS,
    "qwen3": _WINDOWS,
    "qwen3_moe": _WINDOWS,
    "recurrent_gemma": {"head_dim": 8, "lru_width": 32},
    "youtu": _LATENT,
    "zamba": {"num_hidden_layers": 12, "mamba_d_state": 8, "use_mamba_kernels": False},
    "zamba2": {"layer_types": ["mamba", "hybrid"] * 2, "hybrid_layer_ids": [1, 3], "mamba_ngroups": 1},
}

_LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "rope_theta": 1e4}
_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, dynamic RoPE": ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}}),
    "llama, RoPE of Llama 3": (
        "llama",
        {
            "rope_parameters": {
                **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
                **{"original_max_position_embeddings": 16, "rope_theta": 1e4},
            }
        },
    ),
    "llama, YaRN": (
        "llama",
        {
            "rope_parameters": {
                **{"rope_type": "yarn", "factor": 4.0},
                **{"original_max_position_embeddings": 32, "rope_theta": 1e4},
            }
        },
    ),
    "phi3, longrope": (
        "phi3",
        {
            "rope_parameters": {**_LONGROPE, "original_max_position_embeddings": 40, "partial_rotary_factor": 1.0},
            "original_max_position_embeddings": 40,
        },
    ),
    "gemma4_text, shared keys": (
        "gemma4_text",
        {
            "layer_types": ["sliding_attention", "full_attention"] * 3,
            "num_hidden_layers": 6,
            "num_kv_shared_layers": 2,
        },
    ),
    "phi3, window": ("phi3", {"sliding_window": 8}),
    "opt, dropout": ("opt", {"dropout": 0.5, "attention_dropout": 0.5, "layerdrop": 0.5}),
}


@dataclass(frozen=True)
class Verdict:
    """How one aspect of an architecture came out.

    Attributes:
        result: "exact", "refused", "wrong", or "-" where it does not apply.
        why: Of what is refused, in words; of what is wrong, by how much.
    """

    result: str
    why: str = ""


def architectures() -> list[str]:
    """Return the names of all architectures and variants that `examine` takes."""
    types = {config.model_type for config in MODEL_FOR_CAUSAL_LM_MAPPING}
    return sorted({*(types - _NO_DECODER_ONLY), *_VARIANTS})


def examine(name: str) -> dict[str, Verdict]:
    """Try an architecture; return how each of `ASPECTS` came out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            return _examine(name)
        finally:
            logging.set_verbosity(verbosity)
            logging.enable_progress_bar()


def _examine(name: str) -> dict[str, Verdict]:
    model = _make(name, AutoModelForCausalLM)
    conversations = _conversations(longest_context(model.config))
    with torch.no_grad():
        _log_probs(model, conversations[0])  # what does not run here is no verdict, but a bad configuration
    verdicts = {
        "engine": _verdict(_try_engine, model, conversations),
        "policy": _verdict(_try_policy, model, conversations),
    }
    rest: dict[str, Callable[[], None]] = {
        "gradient checkpointing": lambda: _try_policy(model, conversations, gradient_checkpointing=True),
        "reward model": lambda: _try_reward_model(name, conversations),
        "checkpoint": lambda: _try_checkpoint(model, conversations),
        "LoRA": lambda: _try_lora(model, conversations),
    }
    for aspect, attempt in rest.items():  # of what is trained
        verdicts[aspect] = _verdict(attempt) if verdicts["policy"].result == "exact" else Verdict("-")
    return verdicts


class _WrongError(Exception):
    """What llmgym computes differs from what the model does."""


def _verdict(attempt: Callable[..., None], *arguments: Any) -> Verdict:
    try:
        attempt(*arguments)
    except ModelError as error:
        return Verdict("refused", str(error).partition(": ")[2].partition(" (")[0].rstrip("."))
    except _WrongError as error:
        return Verdict("wrong", str(error))
    except Exception as error:  # noqa: BLE001  # whatever is not refused in words
        return Verdict("wrong", f"{type(error).__name__}: {error}")
    return Verdict("exact")


def _make(name: str, auto_class: Any) -> PreTrainedModel:
    """Return a small model with weights so large that whatever is wrong shows."""
    config = _config(name)
    torch.manual_seed(0)
    model: PreTrainedModel = auto_class.from_config(config, attn_implementation="eager")
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=random)
            if parameter.dim() > 1:
                parameter.copy_(noise * 1.5 / parameter.shape[-1] ** 0.5)
            else:
                parameter.add_(0.2 * noise)
    for module in model.modules():
        if isinstance(getattr(module, "config", None), PretrainedConfig):
            module.config._experts_implementation = "eager"  # torch has no grouped products in float64
    return model.double().eval()


def _config(name: str) -> PretrainedConfig:
    kind, options = _VARIANTS.get(name, (name, {}))
    config_class = CONFIG_MAPPING[kind]
    usual = config_class()
    optional = "num_key_value_heads", "head_dim", "pad_token_id", "num_experts_per_tok"
    small = {
        key: value
        for key, value in _SMALL.items()
        if key not in config_class.attribute_map
        and not isinstance(getattr(config_class, key, None), property)
        and hasattr(usual, key)
        and (getattr(usual, key) is not None or key in optional)
    }
    config: PretrainedConfig = config_class(**{**small, **_SPECIAL.get(kind, {}), **options, "num_labels": 1})
    config.use_cache = False
    return config


def _conversations(limit: int) -> list[list[int]]:
    """Two siblings with a common prompt, and an unrelated conversation: of different lengths, none above `limit`."""
    random = torch.Generator().manual_seed(1)
    longest = min(60, limit)
    rows = [torch.randint(3, 300, (longest - less,), generator=random).tolist() for less in (0, 9, 4)]
    return [rows[0], rows[0][: longest // 2] + rows[1][longest // 2 :], rows[2]]


def _log_probs(model: PreTrainedModel, tokens: Sequence[int]) -> Tensor:
    """The log-probability of every token but the first, by the model's own forward pass.  [T-1]"""
    ids = torch.tensor([tokens])
    log_probs: Tensor = model(ids, use_cache=False).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    return log_probs


def _compare(actual: Tensor, expected: Tensor, bound: float = _EXACT) -> None:
    """Raise unless two tensors agree, as a share of the largest number if that is above 1."""
    difference = float((actual.double() - expected.double()).abs().max() / expected.abs().max().clamp(min=1.0))
    if not difference <= bound:
        raise _WrongError(f"off by {difference:.2g}")


def _try_engine(model: PreTrainedModel, conversations: Sequence[list[int]]) -> None:
    engine = LocalEngine(copy.deepcopy(model))
    half = len(conversations[0]) // 2
    prompts = [conversations[0][:half], conversations[1][:half], conversations[2]]
    room = longest_context(model.config)
    for _ in range(2):  # turns
        asked = [
            GenerationRequest(i, i, list(prompt), min(12, room - len(prompt)), (), Sampling(), seed=i)
            for i, prompt in enumerate(prompts)
            if len(prompt) < room
        ]
        engine.submit(asked)
        while done := engine.wait():
            for completion in done:
                prompt = prompts[completion.request_id]
                tokens = [*prompt, *completion.tokens]
                with torch.no_grad():
                    expected = _log_probs(model, tokens)[len(prompt) - 1 :]
                _compare(torch.tensor(completion.log_probs), expected, _EXACT_IN_CACHE)
                prompts[completion.request_id] = [*tokens, 7]


def _try_policy(
    model: PreTrainedModel, conversations: Sequence[list[int]], *, gradient_checkpointing: bool = False
) -> None:
    """Compare values and gradients, and see longer rows refused where RoPE would switch."""
    policy = Policy(copy.deepcopy(model), gradient_checkpointing=gradient_checkpointing)
    _compare_gradients(policy, copy.deepcopy(model), conversations)
    switch = rope_switch(model.config)
    if switch is not None:
        try:
            policy.log_probs(_batch([conversations[0] * (1 + switch // len(conversations[0]))]))
        except ModelError:
            return
        raise _WrongError("rows beyond a switch of RoPE are taken")


def _compare_gradients(policy: Policy, model: PreTrainedModel, conversations: Sequence[list[int]]) -> None:
    batch = _batch(conversations)
    actual = policy.log_probs(batch)[batch["mask"]]
    replies = [_log_probs(model, tokens)[int(batch["prompt_length"][0]) - 1 :] for tokens in conversations]
    expected = torch.cat(replies)
    _compare(actual, expected)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gradients = []
    for of, values in ((policy.model, actual), (model, expected)):
        torch.autograd.backward((values * weights).sum())
        parameters = [parameter for _, parameter in sorted(of.named_parameters()) if parameter.requires_grad]
        flat = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters]
        gradients.append(torch.cat(flat))
    _compare(gradients[0], gradients[1])


def _batch(conversations: Sequence[list[int]]) -> TensorDict:
    width, prompt = max(map(len, conversations)), len(conversations[0]) // 2
    length = torch.tensor([len(tokens) for tokens in conversations])[:, None]
    column = torch.arange(width)
    return TensorDict(
        {
            "tokens": torch.tensor([[*tokens, *[0] * (width - len(tokens))] for tokens in conversations]),
            "mask": (column >= prompt) & (column < length),
            "prompt_length": torch.full((len(conversations),), prompt),
        },
        batch_size=[len(conversations)],
    )


def _try_reward_model(name: str, conversations: Sequence[list[int]]) -> None:
    if type(_config(name)) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ModelError("reward model: transformers has no sequence classification for it")
    model = _make(name, AutoModelForSequenceClassification)
    rewards = RewardModel(model, load_tokenizer(*find_model(TINY_PATH)))
    with torch.no_grad():
        expected = torch.cat([model(torch.tensor([tokens])).logits[:, 0] for tokens in conversations])
    _compare(torch.tensor(rewards.rewards([conversations[:2], conversations[2:]])), expected)


def _try_checkpoint(model: PreTrainedModel, conversations: Sequence[list[int]]) -> None:
    with tempfile.TemporaryDirectory() as directory, torch.no_grad():
        model.save_pretrained(directory)
        options = {"dtype": torch.float64, "attn_implementation": "eager", "experts_implementation": "eager"}
        again = pretrained(AutoModelForCausalLM, directory, "the model", options | {"use_safetensors": True})
        _compare(_log_probs(again, conversations[0]), _log_probs(model, conversations[0]))


def _try_lora(model: PreTrainedModel, conversations: Sequence[list[int]]) -> None:
    """Compare what adapters make of a model, packed and merged, with its own forward pass."""
    adapted = copy.deepcopy(model)
    add_adapters(adapted, rank=4, alpha=8.0)
    adapted.double()
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=random))
    plain = plain_copy(adapted, torch.float64)
    with torch.no_grad():
        for tokens in conversations:
            _compare(_log_probs(plain, tokens), _log_probs(adapted, tokens))
    _compare_gradients(Policy(copy.deepcopy(adapted)), adapted, conversations)


def heading() -> str:
    """Return the first two lines of the table, in Markdown."""
    columns = ["architecture", *ASPECTS, "why not"]
    return f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}\n"


def row(name: str, verdicts: dict[str, Verdict]) -> str:
    """Return what `examine` gave for an architecture, as a line of the table, in Markdown."""
    reasons: dict[str, list[str]] = {}
    for aspect, verdict in verdicts.items():
        if verdict.why:
            reasons.setdefault(verdict.why, []).append(aspect)
    why = "; ".join(f"{', '.join(aspects)}: {reason}" for reason, aspects in reasons.items())
    return f"| {' | '.join([name, *(verdicts[aspect].result for aspect in ASPECTS), why])} |\n"


def main() -> int:
    """Print the table; the exit status is 1 if anything is wrong."""
    sys.stdout.write(heading())
    wrong = False
    for name in architectures():
        verdicts = examine(name)
        wrong |= any(verdict.result == "wrong" for verdict in verdicts.values())
        sys.stdout.write(row(name, verdicts))
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())

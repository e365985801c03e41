"""Loading a causal language model with its tokenizer, and what lies between its trunk and its logits."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from llmgym.errors import ModelError

# Without any of these transformers makes an empty tokenizer up.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")


def load_causal_lm(
    name: str | Path, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer from a local directory or, by its name, from the hub.

    Raises:
        ModelError: There is no such model, it has no tokenizer or no chat template, or its
            vocabulary is smaller than its tokenizer's.
    """
    if isinstance(name, Path) or name.startswith((".", "/", "~")):
        path = os.path.expanduser(name)
        if not os.path.isdir(path):
            raise ModelError(f"--model {str(name)!r}: no such directory.")
        name = path
    if os.path.isdir(name) and not any(os.path.exists(os.path.join(name, file)) for file in _TOKENIZER_FILES):
        raise ModelError(f"--model {name!r}: expected a tokenizer there, found none of {', '.join(_TOKENIZER_FILES)}.")
    tokenizer = _load(AutoTokenizer, name, "a tokenizer")
    if tokenizer.chat_template is None:
        raise ModelError(
            f"--model {name!r}: its tokenizer has no chat template; expected a chat_template.jinja beside it."
        )
    what = "a causal language model with safetensors weights"
    model, info = _load(AutoModelForCausalLM, name, what, dtype=dtype, use_safetensors=True, output_loading_info=True)
    if info["missing_keys"]:
        raise ModelError(f"--model {name!r}: its weights lack {', '.join(sorted(info['missing_keys'])[:3])}.")
    vocabulary = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > vocabulary:
        raise ModelError(f"--model {name!r}: its tokenizer has {len(tokenizer)} tokens, its model embeds {vocabulary}.")
    if getattr(model.config, "attn_logit_softcapping", None) is not None:
        model.set_attn_implementation("eager")  # the others ignore the cap
    return model, tokenizer


def _load(auto_class: Any, name: str, what: str, **options: Any) -> Any:
    try:
        return auto_class.from_pretrained(name, **options)
    except Exception as error:  # a foreign file can make transformers raise anything
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"--model {name!r}: expected {what}, found none that loads ({lines[0]:.300})") from error


def stop_token_ids_of(model: PreTrainedModel) -> list[int]:
    """Return the tokens that the model's own generation settings stop at."""
    ids = getattr(model.generation_config, "eos_token_id", None)
    return [ids] if isinstance(ids, int) else list(ids or [])


def logits_of(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Apply a causal LM's head to hidden states of its trunk: ``[..., D] -> [..., V]``."""
    config = model.config.get_text_config(decoder=True)
    logits: Tensor = model.get_output_embeddings()(hidden)
    logits = logits * getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)

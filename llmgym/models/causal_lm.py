"""Loading a causal language model with its tokenizer, and what lies between its trunk and its logits."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from llmgym.errors import ModelError


def load_causal_lm(
    name: str | Path, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer from a local directory or, by its name, from the hub.

    Raises:
        ModelError: There is no such model, it has no tokenizer or no chat template, or its
            vocabulary is smaller than its tokenizer's.
    """
    if isinstance(name, Path) or name.startswith((".", "/", "~")):
        path = Path(name).expanduser()
        if not path.is_dir():
            raise ModelError(f"--model {str(name)!r}: no such directory.")
        name = str(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"--model {name!r}: expected a tokenizer there, found none that loads ({_first_line(error)})"
        ) from None
    if tokenizer.chat_template is None:
        raise ModelError(
            f"--model {name!r}: its tokenizer has no chat template; expected a chat_template.jinja beside it."
        )
    try:
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"--model {name!r}: expected a causal language model with safetensors weights ({_first_line(error)})"
        ) from None
    vocabulary = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > vocabulary:
        raise ModelError(f"--model {name!r}: its tokenizer has {len(tokenizer)} tokens, its model embeds {vocabulary}.")
    return model, tokenizer


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def logits_of(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Apply a causal LM's head to hidden states of its trunk: ``[..., D] -> [..., V]``."""
    logits: Tensor = model.get_output_embeddings()(hidden)
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)

"""Loading a causal language model or a reward model with its tokenizer, and what lies between trunk and logits."""

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from llmgym.errors import ModelError
from llmgym.models.lora import has_adapters, plain_copy
from llmgym.models.pretrained import check_model, check_objects, load_config, pretrained, stop_tokens

_HUB_TIMEOUT = 10  # seconds

# Without any of these transformers makes an empty tokenizer up.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")

_ANY_TEXT = "Some words, 1 2 3;\n\tüß 日志 🙂"


def load_causal_lm(
    name: str | Path, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer from a local directory or, by its name, from the hub.

    Adapters are merged into the model that they were trained on.

    Args:
        name: A local directory or a name on the hub.
        dtype: Of the weights, whatever the file has.

    Raises:
        ModelError: There is no such model, it has no tokenizer or no chat template, or its
            vocabulary is smaller than its tokenizer's.
    """
    name, options = find_model(name)
    tokenizer = load_tokenizer(name, options)
    what = "a causal language model with safetensors weights"
    check_model(AutoModelForCausalLM, name, options)
    options |= {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    model, info = pretrained(AutoModelForCausalLM, name, what, options)
    _check(name, model, tokenizer, info["missing_keys"])
    if has_adapters(model):  # a checkpoint of adapters beside the model that they were trained on
        return plain_copy(model, dtype).requires_grad_(True), tokenizer
    return model, tokenizer


def load_reward_model(
    name: str | Path, *, fresh_head: bool, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a sequence classification model with one label, and its tokenizer.

    Args:
        name: A local directory or a name on the hub.
        fresh_head: Whether a causal LM will do too, whose trunk then gets a new head with
            random weights.
        dtype: Of the weights.

    Raises:
        ModelError: As of `load_causal_lm`, or the model has no head for one label.
    """
    name, options = find_model(name)
    tokenizer = load_tokenizer(name, options)
    what = "a sequence classification model with one label and safetensors weights"
    check_model(AutoModelForSequenceClassification, name, options)
    options |= {"num_labels": 1, "dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    model, info = pretrained(AutoModelForSequenceClassification, name, what, options)
    head = {key for key in info["missing_keys"] if key.startswith("score.")}
    if head and not fresh_head:
        raise ModelError(
            f"{name!r}: expected {what}, got one without a score head; "
            "`python -m llmgym.agents.reward_model` trains one."
        )
    _check(name, model, tokenizer, set(info["missing_keys"]) - head)
    if head and model.config.get_text_config().pad_token_id is None:  # whoever loads it in batches needs one
        padding = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        model.config.get_text_config().pad_token_id = model.config.pad_token_id = padding
    return model, tokenizer


def find_model(name: str | Path) -> tuple[str, dict[str, Any]]:
    """Return what transformers loads, a directory or a name on the hub, and how.

    Raises:
        ModelError: There is no such directory, and no such model on the hub or in its cache; or a file of the
            directory that has to hold a JSON object holds something else.
    """
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        check_objects(path)
        return path, {}
    absent = f"--model {str(name)!r}: no such directory"
    if isinstance(name, Path) or name.startswith((".", "/", "~")):
        raise ModelError(f"{absent}.")
    try:
        HfApi().model_info(name, timeout=_HUB_TIMEOUT)  # once, where transformers would try each file several times
    except HFValidationError:
        raise ModelError(f"{absent}, and no name on the hub such as 'owner/model'.") from None
    except GatedRepoError:
        raise ModelError(f"{absent}; on the hub, it is for those who accepted its terms and logged in.") from None
    except RepositoryNotFoundError:
        raise ModelError(f"{absent}, and the hub has no such model, or hides it from you.") from None
    except Exception as error:  # noqa: BLE001  # of any of the layers between here and the hub
        if try_to_load_from_cache(name, "config.json") is None:
            reason = f"{type(error).__name__}: {error}"
            raise ModelError(
                f"{absent}; the hub cannot be reached, and its cache has no such model ({reason:.200})."
            ) from None
        return name, {"local_files_only": True}
    return name, {}


def load_tokenizer(name: str, options: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """Load a tokenizer that has a chat template.

    Args:
        name: As `find_model` returned it.
        options: The same.

    Raises:
        ModelError: There is none, it does not encode text, or it has no chat template.
    """
    if os.path.isdir(name) and not any(os.path.exists(os.path.join(name, file)) for file in _TOKENIZER_FILES):
        inside = os.path.join(name, "checkpoint")
        hint = f" Did you mean {inside!r}?" if os.path.isdir(inside) else ""
        raise ModelError(
            f"--model {name!r}: expected a tokenizer there, found none of {', '.join(_TOKENIZER_FILES)}.{hint}"
        )
    if os.path.exists(os.path.join(name, "config.json")):  # transformers reads it for the tokenizer, too
        load_config(name, options)
    tokenizer: PreTrainedTokenizerBase = pretrained(AutoTokenizer, name, "a tokenizer", options)
    longest = tokenizer.model_max_length
    if not (isinstance(longest, int | float) and longest >= 1):
        raise ModelError(
            f"--model {name!r}: tokenizer_config.json: expected model_max_length to be a number of tokens, got "
            f"{longest!r:.80}."
        )
    try:
        tokenizer(_ANY_TEXT)
    except Exception as error:
        raise ModelError(f"--model {name!r}: its tokenizer does not encode {_ANY_TEXT!r} ({error})") from error
    if tokenizer.chat_template is None:
        raise ModelError(
            f"--model {name!r}: its tokenizer has no chat template; expected a chat_template.jinja beside it."
        )
    return tokenizer


def _check(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, missing: Collection[str]) -> None:
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        saved = ", ".join(model.config.architectures or ["something else"])
        raise ModelError(
            f"--model {name!r}: its weights lack {', '.join(sorted(missing)[:3])}{more} of a {type(model).__name__}; "
            f"they were saved as {saved}."
        )
    vocabulary = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > vocabulary:
        raise ModelError(f"--model {name!r}: its tokenizer has {len(tokenizer)} tokens, its model embeds {vocabulary}.")
    if getattr(model.config, "attn_logit_softcapping", None) is not None:
        model.set_attn_implementation("eager")  # the others ignore the cap


def stop_token_ids_of(model: PreTrainedModel) -> list[int]:
    """Return the tokens that the model's own generation settings stop at."""
    return stop_tokens(model.generation_config, model.name_or_path)


@dataclass(frozen=True)
class Head:
    """What a causal LM makes of hidden states: logits, by a linear map, a scale and in some families a cap.

    Attributes:
        weight: Of the linear map.  [V, D]
        bias: The same.  [V]
        scale: What its results are multiplied by.
        cap: What their absolute values stay below; None for no bound.
        temperature: What they are divided by at the end.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    cap: float | None = None
    temperature: float = 1.0

    @classmethod
    def of(cls, model: PreTrainedModel, temperature: float = 1.0) -> "Head":
        """Return the head of a model, with its parameters as they are."""
        linear = model.get_output_embeddings()
        config = model.config.get_text_config(decoder=True)
        scale = getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0)
        cap = getattr(config, "final_logit_softcapping", None)
        return cls(linear.weight, getattr(linear, "bias", None), scale, cap, temperature)

    def shaped(self, products: Tensor) -> Tensor:
        """Return the logits that results of the linear map become, which may be overwritten."""
        logits = products if self.scale == 1.0 else products.mul_(self.scale)
        if self.cap is not None:
            logits = logits.div_(self.cap).tanh_() * self.cap
        return logits if self.temperature == 1.0 else logits.div_(self.temperature)

    def slope(self, logits: Tensor) -> Tensor | float:
        """Return the derivative of logits with respect to the results of the linear map."""
        slope = self.scale / self.temperature
        if self.cap is None:
            return slope
        return (logits * (self.temperature / self.cap)).square_().mul_(-slope).add_(slope)


def logits_of(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Apply a causal LM's head to hidden states of its trunk: ``[..., D] -> [..., V]``."""
    return Head.of(model).shaped(model.get_output_embeddings()(hidden))


@contextlib.contextmanager
def float32_by_default() -> Iterator[None]:
    """Make new tensors float32 within a ``with`` block or a function that this decorates.

    An environment or a scorer in the same process may have asked torch for another type.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)

"""Attention of our own in the layers of transformers models."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig, PreTrainedModel

from llmgym.errors import ModelError
from llmgym.models.shards import check_whole


@dataclass(frozen=True)
class Causal:
    """What a layer sees: what its model hands it in place of a mask, for an attention function of ours.

    Attributes:
        window: Tokens that a token sees, itself included; None for all before it.
    """

    window: int | None


def register(name: str, attend: Callable[..., Any]) -> None:
    """Let models attend by a function, under a name that `attending` takes.

    Args:
        name: Any that transformers does not know.
        attend: As of `transformers.AttentionInterface`; `attention_mask` is a `Causal`, see `window_of`.
    """
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, _causal)


def attending(model: PreTrainedModel, name: str) -> PreTrainedModel:
    """Return a model that attends by the implementation of this name, and is the given one in all else.

    The given model stays as it is. transformers reads the name off a configuration, and makes masks by it where no
    keyword of a call gets; so the other model has modules and configurations of its own, always in evaluation mode.
    Parameters, buffers, hooks and adapters are those of the given model: what is learnt, moved or switched off there is
    so here. Modules that are replaced there later are not.

    Args:
        model: Any.
        name: That transformers knows, or one of `register`.

    Raises:
        ModelError: Its parameters are in shards.
    """
    check_whole(model)
    shared: dict[int, Any] = {id(parameter): parameter for parameter in model.parameters()}
    for module in model.modules():
        rotary = module._buffers and not module._parameters and not module._modules  # a call may change its settings
        if rotary or "base_layer" in module._modules:  # or one with adapters
            shared[id(module)] = module
        shared |= {id(held): held for key, held in vars(module).items() if isinstance(held, dict) and key != "_modules"}
    other = copy.deepcopy(model, shared)
    for module in {*other.modules()} - {*model.modules()}:
        module.training = False
    other.config._attn_implementation = name
    return other


def window_of(attention_mask: Any, sinks: Any = None) -> int | None:
    """Return how many tokens a token sees by the mask that its model asked for; None for all before it.

    Raises:
        ModelError: The layer needs more than a window.
    """
    if sinks is not None:
        raise ModelError("its attention has sinks, which take a share of the weights")
    if not isinstance(attention_mask, Causal):
        raise ModelError("it makes its attention masks itself")
    return attention_mask.window


def _causal(
    *, config: PretrainedConfig, local_size: int | None = None, use_vmap: bool = False, **options: Any
) -> Causal:
    """What transformers calls for a mask, once for every kind of layer."""
    if "allow_is_bidirectional_skip" in options:
        raise ModelError("its tokens see those after them")
    if local_size is not None and local_size == getattr(config, "attention_chunk_size", None):
        raise ModelError("it attends in chunks")
    if use_vmap:
        raise ModelError("its attention masks are more than causal")
    return Causal(local_size)

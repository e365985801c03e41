"""Attention of our own in the layers of transformers models."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig, PreTrainedModel

from llmgym.errors import ModelError


@dataclass(frozen=True)
class Causal:
    """What a layer sees: what its model hands it in place of a mask, for an attention function of ours.

    Attributes:
        window: Tokens that a token sees, itself included; None for all before it.
    """

    window: int | None


def register(name: str, attend: Callable[..., Any]) -> None:
    """Let models attend by a function, under a name that `attention` takes.

    Args:
        name: Any that transformers does not know.
        attend: As of `transformers.AttentionInterface`; `attention_mask` is a `Causal`, see `window_of`.
    """
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, _causal)


@contextmanager
def attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Let a model attend by the implementation of this name, for the time of a ``with`` block."""
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


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

"""`Trunk`: a language model without its head, over packed rows; the base of policies and critics."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from llmgym.errors import ModelError
from llmgym.learn.packed_attention import PACKED
from llmgym.learn.packing import pack
from llmgym.models.attention import attending
from llmgym.models.context import rope_switch
from llmgym.models.self_test import Probe


class Trunk(nn.Module):
    """From a batch of trajectories to the hidden states before their sampled tokens.

    A batch is packed: rows follow one another without padding, and siblings share one
    pass over their prompt, gradients included.

    Args:
        model: A language model, with or without a head. It is kept in evaluation mode: dropout
            would make the policy that learns another one than the policy that sampled.
        gradient_checkpointing: Keep a layer's input for the backward pass, and compute the
            rest of the layer again there: less memory, more time.

    Raises:
        ModelError: The model does not support gradient checkpointing.
    """

    def __init__(self, model: PreTrainedModel, *, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.model = model.eval()
        self.gradient_checkpointing = gradient_checkpointing
        self._rope_switch = rope_switch(model.config)
        packed = attending(model, PACKED)
        if gradient_checkpointing:
            _checkpoint(packed)
        self._body = (_Body(packed),)  # no submodule: its parameters are the model's

    @property
    def body(self) -> "_Body":
        """What runs; its model has the same parameters and attends by an implementation for packed rows."""
        return self._body[0]

    @property
    def width(self) -> int:
        """Size of a hidden state."""
        return int(self.model.config.get_text_config(decoder=True).hidden_size)

    def states(self, batch: TensorDictBase) -> Tensor:
        """Return the hidden state before every sampled token, in the order of the batch's mask.  [S, D]

        Args:
            batch: ``tokens`` [B, T], ``mask`` [B, T] and ``prompt_length`` [B], padded on
                the right, as `collate` returns them.
        """
        packed = pack(batch, self.model.device)
        if not packed.segments:
            return torch.empty(0, self.width, dtype=self.model.dtype, device=self.model.device)
        if self._rope_switch is not None and int(packed.positions.max()) >= self._rope_switch:
            raise ModelError(
                f"Expected conversations of at most {self._rope_switch} tokens, got one of more: beyond, the rotary "
                f"frequencies of this model depend on the longest row of a batch. Lower context_length."
            )
        hidden = self.body(input_ids=packed.tokens[None], position_ids=packed.positions[None], packed=packed)[0]
        # index_select, not indexing: its gradient adds up in a fixed order, so runs repeat.
        states: Tensor = hidden.index_select(0, packed.before)
        return states

    def probed(self, probe: Probe) -> list[Tensor]:
        """Return the states of a self-test: at the last token of the prompt and at all after it.  [n, D] each"""
        length = torch.tensor([len(tokens) for tokens in probe.conversations])[:, None]
        column = torch.arange(int(length.max()) + 1)
        mask = (column >= probe.prompt) & (column <= length)  # what comes after the last token is sampled, too
        tokens = [[*tokens, *[0] * (len(column) - len(tokens))] for tokens in probe.conversations]
        prompts = torch.full((len(tokens),), probe.prompt)
        batch = TensorDict({"tokens": torch.tensor(tokens), "mask": mask, "prompt_length": prompts})
        return list(torch.split(self.states(batch), mask.sum(1).tolist()))


class _Body(nn.Module):
    """What computes hidden states."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> Tensor:
        """Return the hidden states of packed rows.  [1, N, D]"""
        hidden: Tensor = self.model.base_model(**inputs, use_cache=False)[0]
        return hidden


def _checkpoint(model: PreTrainedModel) -> None:
    """Let the layers of a model run again in the backward pass, in evaluation mode both times."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ModelError(f"gradient_checkpointing: models of type {model.config.model_type!r} do not support it.")
    for layer in layers:
        layer.gradient_checkpointing = layer.training = True  # transformers looks at both
        layer._gradient_checkpointing_func = partial(_run_again, layer)


def _run_again(layer: nn.Module, forward: Callable[..., Any], *inputs: Any) -> Any:
    """Run a layer so that it is run again in the backward pass."""

    def evaluated(*inputs: Any) -> Any:
        layer.training = False
        try:
            return forward(*inputs)
        finally:
            layer.training = True

    return checkpoint(evaluated, *inputs, use_reentrant=False)

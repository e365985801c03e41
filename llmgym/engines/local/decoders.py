"""From packed tokens to hidden states: any transformers model, and the Llama family with fewer steps."""

from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    LlamaForCausalLM,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
)

from llmgym.engines.local.forward_pass import Pass
from llmgym.models.attention import attending, register, window_of
from llmgym.models.causal_lm import logits_of
from llmgym.models.shards import check_whole

_ROWS = 16  # bfloat16 products on a processor have a multiple of so many
_ATTENTION = "llmgym_cache"  # the name under which models attend over a cache


class Decoder(Protocol):
    """A model's trunk, run over packed tokens."""

    def hidden(self, forward_pass: Pass) -> Tensor:
        """Run the tokens, their keys and values going to the cache; return their last hidden states.  [N, C]"""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Return what comes after tokens with these hidden states.  [N, V]"""
        ...

    def refresh(self) -> None:
        """Follow the model if its parameters have moved to other memory."""
        ...


def make_decoder(model: PreTrainedModel) -> Decoder:
    """Return the fastest decoder that runs the model."""
    return FusedDecoder(model) if FusedDecoder.runs(model) else TransformersDecoder(model)


class TransformersDecoder:
    """Any decoder-only model, through transformers' attention interface.

    Args:
        model: A causal LM whose attention layers transformers lets others implement.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._trunk = attending(model, _ATTENTION).base_model

    def hidden(self, forward_pass: Pass) -> Tensor:
        """See `Decoder`."""
        states: Tensor = self._trunk(
            input_ids=forward_pass.tokens[None],
            position_ids=forward_pass.positions[None],
            use_cache=False,
            forward_pass=forward_pass,
        )[0][0]
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Decoder`."""
        return logits_of(self._model, hidden)

    def refresh(self) -> None:
        """Nothing to do: the model's own parameters run."""


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float,
    forward_pass: Pass,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every attention layer: query [1, H, N, D], key and value [1, K, N, D]."""
    window = window_of(attention_mask, s_aux)
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    layer = cast(int, module.layer_idx)
    attended = forward_pass.attend(layer, query, key, value, scaling, window, softcap)
    return attended.contiguous()[None], None


register(_ATTENTION, _attend)


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer's parameters, those of parallel projections joined.

    Attributes:
        module: The layer of the model.
        window: Tokens that a token sees, itself included; None for all.
        qkv: Weight and bias of queries, keys and values.
        gate_up: Weight and bias of the gate and what it gates.
    """

    module: Any
    window: int | None
    qkv: tuple[Tensor, Tensor | None]
    gate_up: tuple[Tensor, Tensor | None]


class FusedDecoder:
    """Llama, Qwen2, Qwen3 and Mistral: the same function in fewer and larger operations.

    The weights of parallel projections are joined into one matrix, and the model's own
    parameters become views of it, so that nothing is held twice and a learner that trains
    the model in place trains this decoder.

    Args:
        model: A model that `runs` says yes to.
    """

    _FAMILIES = (LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, MistralForCausalLM)

    def __init__(self, model: PreTrainedModel) -> None:
        self._model, self._trunk = model, model.model
        self._config = config = model.config
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._layers: list[_Layer] = []
        self.refresh()

    @classmethod
    def runs(cls, model: PreTrainedModel) -> bool:
        """Whether the model is exactly of a family that this decoder was written after."""
        if type(model) not in cls._FAMILIES:
            return False
        projections = (p for layer in model.model.layers for parallel in _projections(layer) for p in parallel)
        return model.config.hidden_act == "silu" and all(type(projection) is nn.Linear for projection in projections)

    def refresh(self) -> None:
        """See `Decoder`.

        Raises:
            ModelError: The model's parameters are in shards, of which nothing is a view.
        """
        check_whole(self._model)
        parameters = [layer.self_attn.q_proj.weight for layer in self._trunk.layers]
        if [parameter.data_ptr() for parameter in parameters] == [layer.qkv[0].data_ptr() for layer in self._layers]:
            return
        mistral = isinstance(self._model, MistralForCausalLM)
        self._layers = [
            _Layer(
                layer,
                self._config.sliding_window if mistral else getattr(layer.self_attn, "sliding_window", None),
                *map(_join, _projections(layer)),
            )
            for layer in self._trunk.layers
        ]

    def hidden(self, forward_pass: Pass) -> Tensor:
        """See `Decoder`."""
        count = len(forward_pass.tokens)
        hidden = self._padded(self._trunk.embed_tokens(forward_pass.tokens))  # [N, C]
        rotation = self._trunk.rotary_emb(hidden, forward_pass.positions[None])
        cos, sin = (self._padded(part[0])[:, None] for part in rotation)  # [N, 1, D]
        half = cos.shape[-1] // 2
        sin = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
        for index, layer in enumerate(self._layers):
            attention, mlp = layer.module.self_attn, layer.module.mlp
            normed = self._norm(hidden, layer.module.input_layernorm)
            qkv = F.linear(normed, *layer.qkv).view(len(hidden), self._heads + 2 * self._kv_heads, -1)
            query_key, value = qkv[:, : -self._kv_heads], qkv[:, -self._kv_heads :]
            if hasattr(attention, "q_norm"):
                query, key = query_key[:, : self._heads], query_key[:, self._heads :]
                query_key = torch.cat([attention.q_norm(query), attention.k_norm(key)], dim=1)
            query_key = torch.addcmul(query_key * cos, query_key.roll(half, dims=-1), sin)
            query, key, value = query_key[:count, : self._heads], query_key[:count, self._heads :], value[:count]
            attended = forward_pass.attend(index, query, key, value, attention.scaling, layer.window)  # [N, H, D]
            hidden = hidden + attention.o_proj(self._padded(attended.flatten(1)))
            gate, up = F.linear(self._norm(hidden, layer.module.post_attention_layernorm), *layer.gate_up).chunk(2, -1)
            hidden = hidden + mlp.down_proj(F.silu(gate).mul_(up))
        return self._norm(hidden[:count], self._trunk.norm)

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Decoder`."""
        return logits_of(self._model, self._padded(hidden))[: len(hidden)]

    def _padded(self, rows: Tensor) -> Tensor:
        """Pad bfloat16 rows on a processor: oneDNN compiles a product for every number of rows, and keeps it."""
        if rows.dtype != torch.bfloat16 or rows.device.type != "cpu":
            return rows
        return F.pad(rows, (0, 0, 0, -len(rows) % _ROWS))

    def _norm(self, hidden: Tensor, norm: Any) -> Tensor:
        """Root-mean-square normalisation, in float32 as the model does it."""
        wide = hidden.float()
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(hidden.shape[-1])
        normed: Tensor = (wide * scale.add_(self._config.rms_norm_eps).rsqrt_()).to(hidden.dtype) * norm.weight
        return normed


def _projections(layer: Any) -> tuple[list[Any], list[Any]]:
    """The projections of one layer that read the same input."""
    attention, mlp = layer.self_attn, layer.mlp
    return [attention.q_proj, attention.k_proj, attention.v_proj], [mlp.gate_proj, mlp.up_proj]


def _join(projections: list[Any]) -> tuple[Tensor, Tensor | None]:
    """Return the projections' weight and bias as one of each, which theirs become views of."""
    weight = _one_tensor([projection.weight for projection in projections])
    biased = projections[0].bias is not None
    return weight, _one_tensor([projection.bias for projection in projections]) if biased else None


def _one_tensor(parameters: list[nn.Parameter]) -> Tensor:
    """Return the parameters joined along their first dimension; they become views of the result."""
    joined = torch.cat([parameter.detach() for parameter in parameters])
    begin = 0
    for parameter in parameters:
        parameter.data = joined[begin : begin + len(parameter)]
        begin += len(parameter)
    return joined

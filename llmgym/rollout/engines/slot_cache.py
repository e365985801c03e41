"""The embedded engine's KV cache: one preallocated row per episode, behind transformers' cache interface."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig
from transformers.cache_utils import Cache

ATTENTION = "llmgym_slots"
"""The name under which `attend` is registered with transformers."""

_GROWTH = 256  # tokens by which all rows grow when one is full


class SlotCache(Cache):
    """Keys and values of every episode in flight, each in a row of its own.

    A forward pass runs over consecutive rows, which `select` names; every attention layer
    then writes its new keys and values behind what its row holds and reads the row back as
    a view, without a copy.

    Args:
        config: The model's configuration.
        rows: Episodes that fit.
        context_length: Tokens that a row may grow to; memory is taken as rows need it.
        dtype: Type of keys and values.
        device: Where they live.
    """

    def __init__(
        self, config: PretrainedConfig, rows: int, context_length: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__(layers=[])
        self.context_length = context_length
        shape = (2, rows, _kv_heads(config), min(_GROWTH, context_length), _head_dim(config))
        self._store = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)]
        # By layer: [key or value, row, head, token, head_dim]

    @staticmethod
    def bytes_per_token(config: PretrainedConfig, dtype: torch.dtype) -> int:
        """Return what one token of one row takes."""
        return int(config.num_hidden_layers * 2 * _kv_heads(config) * _head_dim(config) * dtype.itemsize)

    def select(self, first_row: int, positions: Tensor) -> None:
        """Name the rows and positions of the next forward pass.

        Args:
            first_row: The row of the first sequence; the others follow it.
            positions: The position of every new token, ascending from what its row holds.
                Padding on the right continues them; it is overwritten by what comes next.  [B, T]
        """
        batch = len(positions)
        self._rows = slice(first_row, first_row + batch)
        self._row_index = torch.arange(first_row, first_row + batch, device=positions.device)[:, None]  # [B, 1]
        self._positions = positions
        self._length = min(int(positions.max()) + 1, self.context_length)
        self._grow(self._length)
        self._masks: dict[int | None, Tensor] = {}

    def mask(self, window: int | None) -> Tensor:
        """Return which cached tokens each new token sees, as a bias to its scores.  [B, 1, T, L]"""
        if window not in self._masks:
            distance = self._positions[:, None, :, None] - torch.arange(self._length, device=self._positions.device)
            seen = distance >= 0 if window is None else (distance >= 0) & (distance < window)
            dtype = self._store[0].dtype
            bias = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
            self._masks[window] = bias.masked_fill_(~seen, torch.finfo(dtype).min)
        return self._masks[window]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write a layer's new keys and values [B, H, T, D]; return all that the rows hold [B, H, L, D]."""
        keys, values = self._store[layer_idx]
        keys[self._row_index, :, self._positions] = key_states.transpose(1, 2)
        values[self._row_index, :, self._positions] = value_states.transpose(1, 2)
        return keys[self._rows, :, : self._length], values[self._rows, :, : self._length]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return 0: positions are given to the model, not derived from the cache."""
        return 0

    def copy_row(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of a row to another."""
        for layer in self._store:
            layer[:, target, :, :length] = layer[:, source, :, :length]

    def swap_rows(self, one: int, other: int, length: int) -> None:
        """Exchange the first `length` tokens of two rows."""
        for layer in self._store:
            layer[:, [one, other], :, :length] = layer[:, [other, one], :, :length]  # the right side is a copy

    def _grow(self, length: int) -> None:
        """Make room for `length` tokens in every row, a layer at a time."""
        room = self._store[0].shape[3]
        if length <= room:
            return
        larger = min(self.context_length, -(-length // _GROWTH) * _GROWTH)
        for i, layer in enumerate(self._store):
            self._store[i] = nn.functional.pad(layer, (0, 0, 0, larger - room))


def _kv_heads(config: PretrainedConfig) -> int:
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def _head_dim(config: PretrainedConfig) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    slots: SlotCache,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention over the rows of a `SlotCache`, without repeating keys for grouped queries.

    Args:
        module: The attention layer.
        query: [B, H, T, D]
        key: [B, K, L, D], with H a multiple of K.
        value: [B, K, L, D]
        attention_mask: Not used; the cache knows what is seen.
        scaling: Factor of the scores.
        slots: The cache that `key` and `value` came from.
        sliding_window: Tokens that a token sees, itself included; None for all.
        softcap: Bound of the scores, if the model has one.
        kwargs: What transformers passes besides; without effect here.

    Returns:
        The attended values [B, T, H, D], and no weights.
    """
    batch, heads, width, head_dim = query.shape
    groups = key.shape[1]
    grouped = (query * scaling).reshape(batch, groups, heads // groups * width, head_dim)
    scores = grouped @ key.transpose(2, 3)  # [B, K, H/K*T, L]
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.view(batch, groups, heads // groups, width, -1) + slots.mask(sliding_window)[:, :, None]
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    attended = weights.view(batch, groups, heads // groups * width, -1) @ value
    return attended.view(batch, heads, width, head_dim).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, attend)

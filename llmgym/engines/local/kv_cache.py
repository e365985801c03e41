"""`Store`: keys and values of many sequences, each in a preallocated row."""

import torch
from torch import Tensor
from transformers import PretrainedConfig

from llmgym.errors import ModelError


class Store:
    """Rows of equal capacity, in every layer of a model.

    Args:
        config: The model's configuration.
        dtype: Type of keys and values.
        device: Where they live.

    Attributes:
        rows: How many there are.
        length: Tokens that each of them can hold.
        resized: How often that changed, and keys and values moved.
    """

    def __init__(self, config: PretrainedConfig, dtype: torch.dtype, device: torch.device) -> None:
        self.rows, self.length, self.resized = 0, 0, 0
        self.dtype, self.device = dtype, device
        self._heads, self._head_dim = _kv_heads(config), _head_dim(config)
        empty = torch.empty((2, 0, self._heads, 0, self._head_dim), dtype=dtype, device=device)
        self._layers = [empty] * config.num_hidden_layers  # each [key or value, row, head, token, head_dim]

    @property
    def tokens(self) -> int:
        """Tokens that all rows together can hold."""
        return self.rows * self.length

    @torch.inference_mode()
    def resize(self, rows: int, length: int) -> None:
        """Change the capacity, a layer at a time; what still fits is kept."""
        for i, old in enumerate(self._layers):
            new = old.new_zeros((2, rows, self._heads, length, self._head_dim))
            kept = (slice(None), slice(min(rows, self.rows)), slice(None), slice(min(length, self.length)))
            new[kept] = old[kept]
            self._layers[i] = new
        self.rows, self.length = rows, length
        self.resized += 1

    def places(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return where the keys of the tokens in these rows and columns [N] stand.  [N*K]"""
        heads = torch.arange(self._heads, device=rows.device)
        return ((rows[:, None] * self._heads + heads) * self.length + columns[:, None]).reshape(-1)

    @torch.inference_mode()
    def write(self, layer: int, places: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write the keys and values [N, K, D] of tokens to the places that `places` returned for them.

        Raises:
            ModelError: They have another shape.
        """
        if keys.shape[1:] != (self._heads, self._head_dim) or keys.shape != values.shape:
            raise ModelError(
                f"its keys and values have the shapes {list(keys.shape[1:])} and {list(values.shape[1:])} per token, "
                f"where its configuration says {[self._heads, self._head_dim]}"
            )
        for store, new in zip(self._layers[layer], (keys, values), strict=True):
            flat = new.reshape(-1, self._head_dim).to(store.dtype)  # [N*K, D]
            store.view(-1, self._head_dim).index_copy_(0, places, flat)

    def at(self, layer: int, places: Tensor) -> Tensor:
        """Return the keys and values at the places of N tokens.  [2, N, K, D]"""
        flat = self._layers[layer].view(2, -1, self._head_dim)
        return flat[:, places].view(2, -1, self._heads, self._head_dim)

    def read(self, layer: int, rows: slice | Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Return the first `length` keys and values of rows, as views if `rows` is a slice.  [R, K, L, D] each"""
        keys, values = self._layers[layer]
        return keys[rows, :, :length], values[rows, :, :length]

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of a row to another."""
        for layer in self._layers:
            layer[:, target, :, :length] = layer[:, source, :, :length]

    @torch.inference_mode()
    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first `length` tokens of two rows."""
        for layer in self._layers:
            layer[:, [one, other], :, :length] = layer[:, [other, one], :, :length]  # the right side is a copy


def bytes_per_token(config: PretrainedConfig, dtype: torch.dtype) -> int:
    """Return what the keys and values of one token take."""
    return int(config.num_hidden_layers * 2 * _kv_heads(config) * _head_dim(config) * dtype.itemsize)


def _kv_heads(config: PretrainedConfig) -> int:
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def _head_dim(config: PretrainedConfig) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)

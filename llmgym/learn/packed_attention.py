"""Attention over packed tokens, behind transformers' attention interface.

No key is repeated for grouped queries and no prompt is copied for its continuations. On a
processor the scores are made block by block, each small enough for its cache; elsewhere
PyTorch's fused kernels run over padded rows.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from llmgym.errors import ModelError
from llmgym.learn.packing import Packed, Segment
from llmgym.models.attention import register, window_of

PACKED = "llmgym_packed"
"""The name under which models attend over packed tokens."""

_BLOCK = 2**17  # scores of a block and head, at most: half a MiB, which fits a core's own cache
_KEPT = 2**22  # attention weights that a layer keeps for its backward pass, at most; beyond, it computes them again


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float,
    packed: Packed,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of packed tokens to their own row, prompt included.

    Args:
        module: The attention layer.
        query: [1, H, N, D]
        key: [1, K, N, D], with H a multiple of K.
        value: [1, K, N, D]
        attention_mask: The window, see `window_of`; the segments say the rest of what is seen.
        scaling: Factor of the scores.
        packed: Whose tokens these are.
        softcap: Bound of the scores, if the model has one.
        s_aux: Attention sinks, if the model has some.
        kwargs: Other arguments that transformers passes; ignored.

    Returns:
        The attended values [1, N, H, D], and no weights.

    Raises:
        ModelError: The layer needs more than a window.
    """
    window = window_of(attention_mask, s_aux)
    if value.shape[-1] != query.shape[-1]:
        raise ModelError("its values have another width than its queries")
    if query.device.type == "cpu" or softcap is not None:  # the fused kernels have no softcap
        return in_blocks(query, key, value, scaling, packed.segments, window, softcap), None
    return in_padded_rows(query, key, value, scaling, packed.segments, window), None


register(PACKED, attend)


def in_padded_rows(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, segments: Sequence[Segment], window: int | None
) -> Tensor:
    """PyTorch's attention over segments padded to equal length; see `attend`."""
    device = query.device
    bounds = torch.tensor(segments, device=device)  # [B, 4]
    start, stop, context_start, context_stop = (bound[:, None] for bound in bounds.unbind(1))  # each [B, 1]
    context = context_stop - context_start
    own = torch.arange(int((stop - start).max()), device=device)  # [R]
    column = torch.arange(int((context + stop - start).max()), device=device)  # [L]
    inside = own < stop - start  # [B, R]
    rows = (start + own).where(inside, 0)
    seen = torch.where(column < context, context_start + column, start + column - context)
    seen = seen.where(column < context + stop - start, 0)  # [B, L]
    distance = (context + own)[:, :, None] - column  # [B, R, L]
    visible = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
    padded = nn.functional.scaled_dot_product_attention(
        query[0, :, rows].transpose(0, 1),
        key[0, :, seen].transpose(0, 1),
        value[0, :, seen].transpose(0, 1),
        attn_mask=(visible | ~inside[:, :, None])[:, None],  # a query that saw nothing could become NaN
        scale=scaling,
        enable_gqa=True,
    )  # [B, H, R, D]
    return padded.transpose(1, 2)[inside][None]


def in_blocks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float,
    segments: Sequence[Segment],
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Attention in blocks of queries that share their keys; see `attend`."""
    _, heads, tokens, width = query.shape
    groups = key.shape[1]
    dtype = torch.promote_types(query.dtype, torch.float32)  # scores in bfloat16 would be too coarse
    grouped = (query[0].to(dtype) * scaling).view(groups, heads // groups, tokens, width).transpose(1, 2).contiguous()
    attended: Tensor = _BlockAttention.apply(
        grouped, key[0].to(dtype).contiguous(), value[0].to(dtype).contiguous(), segments, window, softcap
    )  # type: ignore[no-untyped-call]  # [K, N, H/K, D]
    return attended.transpose(0, 1).reshape(1, tokens, heads, width).to(query.dtype)


class _Block(NamedTuple):
    """Some queries of a segment and what they see of the segment's context and tokens, laid end to end.

    Attributes:
        start: Packed index of the first query.
        stop: Packed index after the last.
        first: The first key that any of them sees.
        behind: Index after the last key that any of them sees.
        masked: How many of these keys, counted from the last, not all of the queries see.
        mask: What is added to the scores of those.  [Q, masked]
    """

    start: int
    stop: int
    first: int
    behind: int
    masked: int
    mask: Tensor


def _blocks(segment: Segment, group: int, window: int | None, like: Tensor) -> list[_Block]:
    """Cut a segment's queries into blocks of about equal size."""
    context, length = segment.context_stop - segment.context_start, segment.stop - segment.start
    count = -(-length * (context + length) * group // _BLOCK)
    count = min(count, -(-length // 16))  # narrower products are slow
    blocks = []
    for i in range(count):
        start, stop = i * length // count, (i + 1) * length // count
        first = 0 if window is None else max(0, context + start - window + 1)
        behind = context + stop
        masked = stop - start if window is None or behind <= window else behind - first
        mask = _mask(stop - start, masked, group, window, like.dtype, like.device)
        blocks.append(_Block(segment.start + start, segment.start + stop, first, behind, masked, mask))
    return blocks


@lru_cache(maxsize=256)
def _mask(queries: int, keys: int, group: int, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return what hides the future, and the past beyond the window, from consecutive queries.

    The last query has the position of the last key.  [Q * H/K, keys]
    """
    distance = torch.arange(keys - queries, keys, device=device)[:, None] - torch.arange(keys, device=device)
    hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
    mask = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, -torch.inf)
    return mask.repeat_interleave(group, dim=0)


class _BlockAttention(torch.autograd.Function):
    """Softmax attention of queries [K, N, H/K, D], scaled, to keys and values [K, N, D].

    Its gradients add up in a fixed order.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        segments: Sequence[Segment],
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """Return the attended values.  [K, N, H/K, D]"""
        heads, _, group, width = query.shape
        plan = [(segment, _blocks(segment, group, window, query)) for segment in segments]
        size = sum(len(block.mask) * (block.behind - block.first) for _, blocks in plan for block in blocks)
        keep = heads * size <= _KEPT and softcap is None and any(ctx.needs_input_grad)
        kept = []
        attended = torch.empty_like(query)
        for head in range(heads):
            for segment, blocks in plan:
                keys, values = _seen(segment, key[head]), _seen(segment, value[head])
                for block in blocks:
                    queries = query[head, block.start : block.stop].view(-1, width)
                    weights, _ = _weights(queries, keys, block, softcap)
                    torch.mm(
                        weights,
                        values[block.first : block.behind],
                        out=attended[head, block.start : block.stop].view(-1, width),
                    )
                    if keep:
                        kept.append(weights)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.plan, ctx.softcap = plan, softcap
        return attended

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of query, key and value."""
        query, key, value, *weights_kept = ctx.saved_tensors
        grad = grads[0].contiguous()
        heads, _, _, width = query.shape
        grad_query, grad_key, grad_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        kept = iter(weights_kept)
        for head in range(heads):
            for segment, blocks in ctx.plan:
                keys, values = _seen(segment, key[head]), _seen(segment, value[head])
                of_keys, of_values = torch.zeros_like(keys), torch.zeros_like(values)
                for block in blocks:
                    seen = slice(block.first, block.behind)
                    queries = query[head, block.start : block.stop].view(-1, width)
                    outer = grad[head, block.start : block.stop].view(-1, width)
                    slope = None
                    weights = next(kept, None)
                    if weights is None:
                        weights, slope = _weights(queries, keys, block, ctx.softcap)
                    of_values[seen].addmm_(weights.t(), outer)
                    of_weights = torch.mm(outer, values[seen].t())
                    of_scores = torch._softmax_backward_data(of_weights, weights, 1, weights.dtype)
                    if slope is not None:
                        of_scores *= slope
                    torch.mm(of_scores, keys[seen], out=grad_query[head, block.start : block.stop].view(-1, width))
                    of_keys[seen].addmm_(of_scores.t(), queries)
                _add(grad_key[head], segment, of_keys)
                _add(grad_value[head], segment, of_values)
        return grad_query, grad_key, grad_value, None, None, None


def _weights(queries: Tensor, keys: Tensor, block: _Block, softcap: float | None) -> tuple[Tensor, Tensor | None]:
    """Return the attention weights of a block, and how its scores change with what the softcap bounds.  [Q, L]"""
    scores, slope = torch.mm(queries, keys[block.first : block.behind].t()), None
    if softcap is not None:
        bounded = scores.div_(softcap).tanh_()
        slope = 1 - bounded**2
        scores = bounded * softcap
    scores[:, -block.masked :] += block.mask
    return torch.softmax(scores, dim=1, out=scores), slope


def _seen(segment: Segment, tensor: Tensor) -> Tensor:
    """Return the part [L, D] of a tensor [N, D] that belongs to a segment's context and tokens, laid end to end."""
    own = tensor[segment.start : segment.stop]
    if segment.context_start == segment.context_stop:
        return own
    return torch.cat([tensor[segment.context_start : segment.context_stop], own])


def _add(total: Tensor, segment: Segment, part: Tensor) -> None:
    """Add what `_seen` returned back to where it came from."""
    context = segment.context_stop - segment.context_start
    total[segment.context_start : segment.context_stop] += part[:context]
    total[segment.start : segment.stop] += part[context:]

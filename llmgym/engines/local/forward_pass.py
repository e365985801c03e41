"""`ForwardPass`: any tokens of one forward pass, and what of the cache each of them sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from llmgym.engines.local.attention import attend, merge
from llmgym.engines.local.kv_cache import Store


@dataclass(frozen=True, slots=True)
class Span:
    """New tokens at the end of one sequence.

    Attributes:
        row: Where in the store their keys and values go.
        start: Tokens that the row holds already.
        tokens: The new ones.
        prompt: The row of the prompt store that holds the tokens before this row; None if there are none.
    """

    row: int
    start: int
    tokens: Sequence[int]
    prompt: int | None = None


class Pass(Protocol):
    """What a decoder runs: N new tokens, whose keys and values go to a cache that each of them sees some of."""

    @property
    def tokens(self) -> Tensor:
        """The tokens.  [N]"""
        ...

    @property
    def positions(self) -> Tensor:
        """The position of each token in its conversation.  [N]"""
        ...

    def attend(
        self,
        layer: int,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        scaling: float,
        window: int | None = None,
        softcap: float | None = None,
    ) -> Tensor:
        """Write a layer's new keys and values, and let every new token look at all that it sees.

        Args:
            layer: Index of the layer.
            query: [N, H, D]
            keys: [N, K, D], with H a multiple of K.
            values: [N, K, D]
            scaling: Factor of the scores.
            window: Tokens that a token sees, itself included; None for all.
            softcap: Bound of the scores, if the model has one.

        Returns:
            The attended values.  [N, H, D]
        """
        ...


class ForwardPass:
    """Spans one after another, without padding, so that matrix products run over real tokens only.

    N is the number of tokens, n that of the spans, T the longest of them, L the longest row.

    Args:
        spans: What runs.
        store: Where their keys and values go.
        prompts: The store that the spans' prompts are in.
        prompt_lengths: The tokens of each of its rows in use.

    Attributes:
        tokens: [N]
        positions: Of each token in its conversation.  [N]
    """

    def __init__(self, spans: Sequence[Span], store: Store, prompts: Store, prompt_lengths: Sequence[int]) -> None:
        device = store.device
        self._store = store
        first, n = spans[0].row, len(spans)
        consecutive = all(span.row == first + i for i, span in enumerate(spans))
        rows = torch.tensor([span.row for span in spans], device=device)
        self._rows = slice(first, first + n) if consecutive else rows
        self._length = max(span.start + len(span.tokens) for span in spans)
        counts = torch.tensor([len(span.tokens) for span in spans], device=device)
        starts = torch.tensor([span.start for span in spans], device=device)
        before = torch.tensor(
            [0 if span.prompt is None else prompt_lengths[span.prompt] for span in spans], device=device
        )
        step = torch.arange(max(len(span.tokens) for span in spans), device=device)
        real = step < counts[:, None]  # [n, T]
        self._columns = starts[:, None] + step  # of each token in its row  [n, T]
        self._positions = before[:, None] + self._columns  # [n, T]
        self.tokens = torch.tensor([token for span in spans for token in span.tokens], device=device)
        self.positions = self._positions[real]
        self._places = store.places(rows.repeat_interleave(counts), self._columns[real])
        self._ragged = any(len(span.tokens) != len(step) for span in spans)
        if self._ragged:  # from packed tokens to a rectangle, and back
            self._to_rectangle = (counts.cumsum(0) - counts)[:, None] + step.where(real, 0)  # [n, T]
            self._from_rectangle = real.flatten().nonzero()[:, 0]  # [N]
        self._masks: dict[int | None, Tensor] = {}
        has_prompt = any(span.prompt is not None for span in spans)
        self._siblings = (
            _Siblings([span.prompt for span in spans], prompts, prompt_lengths, self._positions) if has_prompt else None
        )

    def attend(
        self,
        layer: int,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        scaling: float,
        window: int | None = None,
        softcap: float | None = None,
    ) -> Tensor:
        """See `Pass`."""
        self._store.write(layer, self._places, keys, values)
        (n, width), (_, heads, head_dim), kv_heads = self._columns.shape, query.shape, keys.shape[1]
        query = query.to(self._store.dtype) * scaling
        if self._ragged:
            query = query[self._to_rectangle]
        query = query.view(n, width, kv_heads, heads // kv_heads, head_dim)
        query = query.permute(0, 2, 3, 1, 4).reshape(n, kv_heads, -1, head_dim)  # [n, K, H/K * T, D]
        own = self._store.read(layer, self._rows, self._length)
        attended, log_sum = attend(query, *own, self._mask(window, heads // kv_heads), softcap)
        if self._siblings is not None:
            attended = merge(attended, log_sum, *self._siblings.attend(layer, query, window, softcap))
        attended = attended.view(n, kv_heads, heads // kv_heads, width, head_dim).permute(0, 3, 1, 2, 4)
        attended = attended.reshape(n * width, heads, head_dim).to(keys.dtype)
        return attended[self._from_rectangle] if self._ragged else attended

    def _mask(self, window: int | None, repeats: int) -> Tensor:
        """Which tokens of its row each new token sees, as a bias to the scores.  [n, 1, H/K * T, L]"""
        if window not in self._masks:
            ahead = torch.arange(self._length, device=self._columns.device) - self._columns[..., None]  # [n, T, L]
            self._masks[window] = bias(ahead, window, self._store.dtype)[:, None].repeat(1, 1, repeats, 1)
        return self._masks[window]


class _Siblings:
    """Which spans follow which prompt: a prompt's keys are read once for all of them.

    P is the number of prompts, S the largest number of siblings that share one of them.
    """

    def __init__(
        self, prompt_of: list[int | None], store: Store, prompt_lengths: Sequence[int], positions: Tensor
    ) -> None:
        members: dict[int, list[int]] = {prompt: [] for prompt in sorted({p for p in prompt_of if p is not None})}
        for i, prompt in enumerate(prompt_of):
            if prompt is not None:
                members[prompt].append(i)
        most = max(map(len, members.values()))
        place = [0] * len(prompt_of)  # without meaning for those that lack a prompt
        for begin, group in zip(range(0, most * len(members), most), members.values(), strict=True):
            for k, i in enumerate(group):
                place[i] = begin + k
        rows = list(members)
        device = store.device
        self._store = store
        consecutive = rows[-1] - rows[0] == len(rows) - 1
        self._rows = slice(rows[0], rows[-1] + 1) if consecutive else torch.tensor(rows, device=device)
        self._length = max(prompt_lengths[row] for row in rows)
        self._lengths = torch.tensor([prompt_lengths[row] for row in rows], device=device)  # [P]
        padded = [[*group, *[0] * (most - len(group))] for group in members.values()]
        self._members = torch.tensor(padded, device=device)  # [P, S]
        self._place = torch.tensor(place, device=device)  # of each span in the flattened members  [n]
        lacking = [prompt is None for prompt in prompt_of]
        self._lacking = torch.tensor(lacking, device=device)[:, None, None, None] if any(lacking) else None
        self._positions = positions  # [n, T]
        self._masks: dict[int | None, Tensor] = {}

    def attend(self, layer: int, query: Tensor, window: int | None, softcap: float | None) -> tuple[Tensor, Tensor]:
        """Attend queries [n, K, Q, D] to the prompts before them; see `attention.attend` for what is returned."""
        prompts, most = self._members.shape
        _, kv_heads, queries, head_dim = query.shape
        grouped = query[self._members].transpose(1, 2).reshape(prompts, kv_heads, most * queries, head_dim)
        keys, values = self._store.read(layer, self._rows, self._length)
        mask = self._mask(window, queries // self._positions.shape[1])
        parts = []
        for part in attend(grouped, keys, values, mask, softcap):  # [P, K, S * Q, D or 1]
            by_member = part.view(prompts, kv_heads, most, queries, -1).transpose(1, 2)
            parts.append(by_member.reshape(prompts * most, kv_heads, queries, -1)[self._place])
        attended, log_sum = parts
        return attended, log_sum if self._lacking is None else log_sum.masked_fill(self._lacking, -torch.inf)

    def _mask(self, window: int | None, repeats: int) -> Tensor:
        """Which tokens of its prompt each sibling sees.  [P, 1, 1 or S * Q, L]"""
        if window not in self._masks:
            column = torch.arange(self._length, device=self._lengths.device)
            inside = bias(column - (self._lengths[:, None] - 1), None, self._store.dtype)  # [P, L]
            mask = inside[:, None, None]
            if window is not None:
                ahead = column - self._positions[self._members][..., None]  # [P, S, T, L]
                near = bias(ahead, window, self._store.dtype)[:, :, None].expand(-1, -1, repeats, -1, -1)
                mask = torch.minimum(mask, near.reshape(len(inside), 1, -1, self._length))
            self._masks[window] = mask
        return self._masks[window]


def bias(ahead: Tensor, window: int | None, dtype: torch.dtype) -> Tensor:
    """Return 0 where a token is seen from `-ahead` tokens further on, and a very low number elsewhere."""
    seen = ahead <= 0 if window is None else (ahead <= 0) & (ahead > -window)
    return torch.where(seen, 0.0, torch.finfo(dtype).min).to(dtype)

"""Packing: the rows of a batch behind each other, without padding, every distinct prompt once."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor


class Segment(NamedTuple):
    """Consecutive packed tokens that see each other causally, and all of the context before them.

    Attributes:
        start: Index of the first token.
        stop: Index behind the last token.
        context_start: Index of the first token of the context: the prompt of what follows it.
        context_stop: Index behind its last token; equal to `context_start` if there is none.
    """

    start: int
    stop: int
    context_start: int
    context_stop: int


@dataclass(frozen=True)
class Packed:
    """A batch as one sequence of N tokens.

    Attributes:
        tokens: What the model reads.  [N]
        positions: Where each token stands in its own row.  [N]
        segments: What sees what; together they cover the N tokens in order.
        before: The packed token before each sampled one, in the order of the batch's mask.  [S]
    """

    tokens: Tensor
    positions: Tensor
    segments: Sequence[Segment]
    before: Tensor


def pack(batch: TensorDictBase, device: torch.device) -> Packed:
    """Pack the rows of a batch; neighbours with the same prompt share it.

    What follows a row's last sampled token is left out, as is a row without any: no
    sampled token sees it.

    Args:
        batch: ``tokens`` [B, T], ``mask`` [B, T] and ``prompt_length`` [B], padded on the right.
        device: Where the model is.
    """
    tokens: list[int] = []
    positions: list[int] = []
    segments: list[Segment] = []
    before: list[int] = []
    prompt: list[int] = []
    context = (0, 0)
    rows = zip(batch["tokens"].tolist(), batch["mask"].tolist(), batch["prompt_length"].tolist(), strict=True)
    for row, mask, length in rows:
        sampled = list(itertools.compress(range(len(mask)), mask))
        if not sampled:
            continue
        if row[:length] != prompt:
            prompt = row[:length]
            context = (len(tokens), len(tokens) + length)
            segments.append(Segment(*context, context[0], context[0]))
            tokens += prompt
            positions += range(length)
        start, last = len(tokens), sampled[-1]
        if last > length:  # otherwise the prompt alone predicts all that was sampled
            segments.append(Segment(start, start + last - length, *context))
            tokens += row[length:last]
            positions += range(length, last)
        before += [start + column - 1 - length if column > length else context[1] - 1 for column in sampled]

    def tensor(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=device)

    return Packed(tensor(tokens), tensor(positions), segments, tensor(before))


def default_micro_batch_tokens(device: torch.device) -> int:
    """Return how many tokens a forward pass should take: on a processor no more than its cache likes."""
    return 2048 if device.type == "cpu" else 16384


def micro_batches(batch: TensorDict, max_tokens: int) -> Iterator[TensorDict]:
    """Split a batch [B] into runs of rows that pack into at most `max_tokens` tokens each, padding cut off.

    Siblings stay together where they fit. A single row is never split, however long it is.
    """
    lengths, prompts = batch["length"].tolist(), batch["prompt_length"].tolist()
    start, size = 0, 0
    for first, behind in itertools.pairwise(_prompt_starts(batch)):
        prompt = prompts[first]
        whole = prompt + sum(lengths[row] - prompt for row in range(first, behind))
        if start < first and size + whole > max_tokens:
            yield _cut(batch[start:first])
            start, size = first, 0
        size += prompt
        for row in range(first, behind):
            rest = lengths[row] - prompt
            if start < row and size + rest > max_tokens:
                yield _cut(batch[start:row])
                start, size = row, prompt
            size += rest
    yield _cut(batch[start:])


def _prompt_starts(batch: TensorDict) -> list[int]:
    """Return the rows that have another prompt than the row before, and behind them the number of rows."""
    tokens, prompt = batch["tokens"], batch["prompt_length"]
    column = torch.arange(tokens.shape[1], device=tokens.device)
    same = (tokens[1:] == tokens[:-1]) | (column >= prompt[1:, None])
    changed = ~same.all(dim=1) | (prompt[1:] != prompt[:-1])
    return [0, *(1 + changed.nonzero()[:, 0]).tolist(), len(tokens)]


def _cut(batch: TensorDict) -> TensorDict:
    """Cut every [B, T] tensor to the longest row."""
    width = int(batch["length"].max())
    return batch.apply(lambda tensor: tensor[:, :width] if tensor.ndim > 1 else tensor)

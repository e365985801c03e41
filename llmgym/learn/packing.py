"""Packing: the rows of a batch one after another, without padding, every distinct prompt once."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor


class Segment(NamedTuple):
    """Consecutive packed tokens that see each other causally, and all of the context before them.

    Attributes:
        start: Index of the first token.
        stop: Index after the last token.
        context_start: Index of the first token of the context: the prompt of what follows it.
        context_stop: Index after its last token; equal to `context_start` if there is none.

    Example:
        Two siblings have the prompt ``1 2 3``. The prompt is packed once, and each reply sees it and itself. The last
        token of a reply is not packed, because no sampled token sees it.

        >>> from tensordict import TensorDict
        >>> tokens = torch.tensor([[1, 2, 3, 4, 5, 9], [1, 2, 3, 6, 9, 0]])  # the last 0 is padding
        >>> mask = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0]]).bool()
        >>> batch = TensorDict({"tokens": tokens, "mask": mask, "prompt_length": torch.tensor([3, 3])}, [2])
        >>> packed = pack(batch, torch.device("cpu"))
        >>> packed.tokens.tolist()
        [1, 2, 3, 4, 5, 6]
        >>> packed.positions.tolist()
        [0, 1, 2, 3, 4, 3]
        >>> for segment in packed.segments:  # the prompt, then each reply
        ...     print(tuple(segment))
        (0, 3, 0, 0)
        (3, 5, 0, 3)
        (5, 6, 0, 3)
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
        positions: The position of each token in its own row.  [N]
        segments: What sees what; together they cover the N tokens in order.
        before: The packed token before each sampled one, in the order of the batch's mask.  [S]
    """

    tokens: Tensor
    positions: Tensor
    segments: Sequence[Segment]
    before: Tensor


def pack(batch: TensorDictBase, device: torch.device) -> Packed:
    """Pack the rows of a batch; those with the same prompt share it.

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
    contexts: dict[tuple[int, ...], tuple[int, int]] = {}
    rows = zip(batch["tokens"].tolist(), batch["mask"].tolist(), batch["prompt_length"].tolist(), strict=True)
    for row, mask, length in rows:
        sampled = list(itertools.compress(range(len(mask)), mask))
        if not sampled:
            continue
        prompt = tuple(row[:length])
        context = contexts.get(prompt)
        if context is None:
            context = contexts[prompt] = (len(tokens), len(tokens) + length)
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

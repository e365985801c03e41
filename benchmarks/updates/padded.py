"""Episodes as the peers' tensors: padded on the right."""

import torch
from torch import Tensor

from benchmarks.updates.episodes import Episodes


def padded(rows: list[list[int]] | list[list[float]], *, left: bool = False) -> Tensor:
    """Return rows of numbers as one tensor, with zeros on the right, or the left.  [B, T]"""
    tensors = [torch.tensor(row) for row in rows]
    side = "left" if left else "right"
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_side=side)


def whole_rows(episodes: Episodes) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return tokens, which are no padding, which were sampled, and log-probabilities.  [B, T] each"""
    rows = list(zip(episodes.prompts, episodes.rests, episodes.masks, episodes.log_probs, strict=True))
    tokens = padded([prompt + rest for prompt, rest, _, _ in rows])
    real = padded([[1] * (len(prompt) + len(rest)) for prompt, rest, _, _ in rows])
    sampled = padded([[0] * len(prompt) + mask for prompt, _, mask, _ in rows])
    log_probs = padded([[0.0] * len(prompt) + values for prompt, _, _, values in rows])
    return tokens, real.bool(), sampled.bool(), log_probs

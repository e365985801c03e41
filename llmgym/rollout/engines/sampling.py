"""From logits to tokens, one uniform number per token."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def uniforms(seed: int, count: int) -> NDArray[np.float64]:
    """Return the random numbers of a request: a function of its seed alone."""
    return np.random.Generator(np.random.Philox(seed)).random(count)


def sample(logits: Tensor, temperatures: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Sample a token per row by inverting its cumulative distribution.

    Args:
        logits: [B, V]
        temperatures: Divides the logits of each row; 0 takes the likeliest token.  [B]
        u: A uniform number from [0, 1) for each row.  [B]

    Returns:
        The tokens [B] and their log-probabilities under the distribution they were sampled
        from [B]; the likeliest token, taken for sure, has log-probability 0.
    """
    greedy = temperatures == 0
    scaled = logits.float() / torch.where(greedy, 1.0, temperatures)[:, None]
    log_probs = torch.log_softmax(scaled, dim=-1)
    cumulative = log_probs.exp().cumsum(dim=-1, dtype=torch.float64)
    targets = u.to(cumulative.dtype)[:, None] * cumulative[:, -1:]
    sampled = torch.searchsorted(cumulative, targets, right=True)[:, 0].clamp_(max=logits.shape[-1] - 1)
    tokens = torch.where(greedy, logits.argmax(dim=-1), sampled)
    chosen = log_probs.gather(1, tokens[:, None])[:, 0]
    return tokens, torch.where(greedy, 0.0, chosen)

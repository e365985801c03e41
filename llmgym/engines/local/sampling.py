"""From logits to tokens, one uniform number per token."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmgym.config.sections import Sampling


def uniforms(seed: int, count: int) -> NDArray[np.float64]:
    """Return the random numbers of a request: a function of its seed alone."""
    return np.random.Generator(np.random.Philox(seed)).random(count)


def sample(logits: Tensor, sampling: Sequence[Sampling], u: Tensor) -> tuple[Tensor, Tensor]:
    """Sample a token per row by inverting its cumulative distribution.

    Args:
        logits: [B, V]
        sampling: How each row is sampled.
        u: A uniform number from [0, 1) for each row.  [B] float64

    Returns:
        The tokens [B] and their log-probabilities under the distribution they were sampled
        from [B]; the likeliest token, taken for sure, has log-probability 0.
    """

    def of_each(name: str) -> Tensor:  # [B]
        return torch.tensor([getattr(one, name) for one in sampling], device=logits.device)

    temperatures, top_p, top_k = of_each("temperature"), of_each("top_p"), of_each("top_k")
    greedy = temperatures == 0
    scaled = logits.float() / torch.where(greedy, 1.0, temperatures)[:, None]
    if any(one.top_k for one in sampling):
        scaled = _likeliest(scaled, top_k)
    probabilities = torch.softmax(scaled, dim=-1)
    if any(one.top_p < 1 for one in sampling):
        scaled = _nucleus(scaled, probabilities, top_p)
        probabilities = torch.softmax(scaled, dim=-1)
    if any(one.min_p for one in sampling):
        least = of_each("min_p")[:, None] * probabilities.amax(dim=-1, keepdim=True)
        scaled = scaled.masked_fill(probabilities < least, -torch.inf)
        probabilities = torch.softmax(scaled, dim=-1)
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
    tokens = torch.searchsorted(cumulative, u[:, None] * cumulative[:, -1:], right=True)[:, 0]
    tokens = tokens.clamp_(max=logits.shape[-1] - 1)
    log_probs = probabilities.gather(1, tokens[:, None])[:, 0].log()
    if greedy.any():
        tokens = torch.where(greedy, logits.argmax(dim=-1), tokens)
        log_probs = torch.where(greedy, 0.0, log_probs)
    return tokens, log_probs


def _likeliest(logits: Tensor, top_k: Tensor) -> Tensor:
    """Lower all but each row's `top_k` largest logits to -inf; ties with the last are kept."""
    counts = torch.where(top_k == 0, logits.shape[-1], top_k).clamp(max=logits.shape[-1])
    ordered = logits.topk(int(counts.max()), dim=-1).values
    return logits.masked_fill(logits < ordered.gather(1, counts[:, None] - 1), -torch.inf)


def _nucleus(logits: Tensor, probabilities: Tensor, top_p: Tensor) -> Tensor:
    """Lower all logits to -inf but those of the fewest tokens whose probabilities reach `top_p`."""
    ordered, order = probabilities.sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1, dtype=torch.float64) - ordered
    beyond = (before >= top_p[:, None]) & (before > 0)  # the likeliest token always stays
    return logits.masked_fill(beyond.scatter(1, order, beyond), -torch.inf)

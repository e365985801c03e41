"""From logits to tokens, one uniform number per token."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from llmgym.config.sections import Sampling

_BLOCK = 128  # tokens
_BELOW_ONE = 1 - 2**-53


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
        from [B]; the likeliest token, taken for sure, has log-probability 0. Where the logits
        are not numbers, so is the log-probability: NaN.
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
    tokens = _invert(probabilities, u)
    log_probs = probabilities.gather(1, tokens[:, None])[:, 0].log()
    if greedy.any():
        tokens = torch.where(greedy, logits.argmax(dim=-1), tokens)
        log_probs = torch.where(greedy & ~log_probs.isnan(), 0.0, log_probs)
    return tokens, log_probs


def _invert(probabilities: Tensor, u: Tensor) -> Tensor:
    """Return each row's token at the fraction `u` of its cumulative distribution.  [B]

    A block of tokens is found by the blocks' sums, then the token by the block's own cumulative
    sum: running sums in float64 over a whole vocabulary would take longer than the softmax.
    """
    blocks = nn.functional.pad(probabilities, (0, -probabilities.shape[-1] % _BLOCK)).reshape(
        len(probabilities), -1, _BLOCK
    )
    block, u = _pick(blocks.sum(dim=-1), u)
    inside, _ = _pick(blocks[torch.arange(len(blocks), device=blocks.device), block], u)
    return (block * _BLOCK + inside).clamp_(max=probabilities.shape[-1] - 1)  # which NaN alone is beyond


def _pick(masses: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return which of a row's masses [B, M] holds the fraction `u` of their sum, and the fraction of it below.  [B]"""
    cumulative = masses.cumsum(dim=-1, dtype=torch.float64)
    target = (u * cumulative[:, -1])[:, None]
    index = torch.searchsorted(cumulative, target, right=True).clamp_(max=masses.shape[-1] - 1)
    mass = masses.gather(1, index).double()
    below = (target - (cumulative.gather(1, index) - mass)) / mass
    return index[:, 0], below.clamp_(0, _BELOW_ONE)[:, 0]


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

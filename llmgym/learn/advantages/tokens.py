"""Advantages of tokens: generalised advantage estimation from a critic's values."""

from __future__ import annotations  # torch is not imported here: the package is read by configurations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 64  # tokens that one row of a matrix product looks ahead


def gae(
    values: Tensor, rewards: Tensor, mask: Tensor, gamma: float, lam: float, *, episode: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Return generalised advantages and returns of the sampled tokens (arXiv:1506.02438, equation 16).

    .. math:: A_t = \delta_t + \gamma \lambda A_{t'}, \qquad \delta_t = r_t + \gamma V_{t'} - V_t, \qquad
        R_t = A_t + V_t

    with :math:`t'` the episode's next sampled token, of this turn or a later one; behind the
    last one there is nothing, and :math:`V` and :math:`A` are 0. Tokens that the environment
    said are no steps: they neither decay nor bootstrap, and values and rewards there are not
    read.

    Args:
        values: The critic's value of the state in which each token was sampled.  [B, T]
        rewards: The reward for each token; a turn's is best put on its last token.  [B, T]
        mask: The token was sampled.  [B, T]
        gamma: Discount, by sampled token.
        lam: 1 sums up all rewards to come, 0 trusts the critic's next value.
        episode: The episode of each row, where the rows of one stand together in order: they
            are then one sequence. None if each row is an episode.  [B]

    Returns:
        Advantages and returns, without gradients; 0 where nothing was sampled.  [B, T] each
    """
    values, sampled = values.detach(), mask.sum(dim=1)  # sampled: [B]
    if episode is not None:
        row = (episode.diff(prepend=episode[:1]) != 0).cumsum(0)  # [B], 0 to E-1
        sampled = sampled.new_zeros(len(values)).index_add_(0, row, sampled)  # [B], of which the first E count
    # Sampled tokens move together, [B, N]; then the recurrence is a product with a matrix of powers, in chunks.
    chunks = max(1, -(-int(sampled.max()) // _CHUNK))
    together = _numbers(sampled, chunks * _CHUNK) <= sampled[:, None]
    value, delta = (
        source.new_zeros(together.shape).masked_scatter_(together, source.masked_select(mask))
        for source in (values, rewards.detach().to(values.dtype))
    )
    delta.sub_(value)[:, :-1].add_(value[:, 1:], alpha=gamma)
    decay = gamma * lam
    advantage = delta.view(-1, chunks, _CHUNK) @ _powers(decay, _CHUNK, values)  # within each chunk
    first = advantage[:, :, 0] @ _powers(decay**_CHUNK, chunks, values)  # of each chunk, all later ones included
    advantage[:, :-1].addcmul_(first[:, 1:, None], decay ** _numbers(values, _CHUNK).flip(0))
    flat = advantage.view(together.shape).masked_select(together)
    advantages = values.new_zeros(mask.shape).masked_scatter_(mask, flat)
    return advantages, (advantages + values).masked_fill_(~mask, 0.0)


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Shift and scale to mean 0 and standard deviation 1 over the tokens of a mask.

    Args:
        values: [B, T]
        mask: The tokens that count.  [B, T]

    Returns:
        The whitened values; 0 outside the mask, and everywhere if fewer than two tokens
        count or all of them are equal.  [B, T]
    """
    kept = values.masked_select(mask)  # [N]
    mean, std = kept.mean(), kept.std() if len(kept) > 1 else kept.new_zeros(())
    if not std > 1e-6 * mean.abs().clamp(min=1e-6):  # rounding must not turn equal values into differences
        return values.new_zeros(values.shape)
    return ((values - mean) / std).masked_fill_(~mask, 0.0)


def _powers(base: float, n: int, like: Tensor) -> Tensor:
    """Return base^(i-j) where i >= j, 0 elsewhere.  [n, n]"""
    numbers = _numbers(like, n)
    powers: Tensor = base ** (numbers[:, None] - numbers).clamp(min=0)
    return powers.tril_()


def _numbers(like: Tensor, n: int) -> Tensor:
    """Return 1, 2 ... n in the type and on the device of `like`.  [n]"""
    return like.new_ones(n).cumsum(0)

"""Advantages of tokens: generalised advantage estimation from a critic's values."""

from torch import Tensor

from llmgym.learn.signal import rounding_of

_ROWS = 256  # that are worked on at once, in a processor's cache
_CHUNK = 64  # tokens that are gone through one by one, for all chunks of all episodes at once


def gae(
    values: Tensor, rewards: Tensor, mask: Tensor, gamma: float, lam: float, *, episode: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Return generalised advantages and returns of the sampled tokens (arXiv:1506.02438, equation 16).

    .. math:: A_t = \delta_t + \gamma \lambda A_{t'}, \qquad \delta_t = r_t + \gamma V_{t'} - V_t, \qquad
        R_t = A_t + V_t

    with :math:`t'` the episode's next sampled token, of this turn or a later one; after the
    last one there is nothing, and :math:`V` and :math:`A` are 0. Tokens that the environment
    said are not steps: they neither decay nor bootstrap, and their values and rewards are not
    read.

    Args:
        values: The critic's value of the state in which each token was sampled.  [B, T]
        rewards: The reward for each token; a turn's is best put on its last token.  [B, T]
        mask: The token was sampled.  [B, T]
        gamma: Discount, per sampled token.
        lam: 1 sums up all rewards to come, 0 trusts the critic's next value.
        episode: The episode of each row. The rows of an episode are adjacent and in order: they
            are then one sequence. None if each row is an episode.  [B]

    Returns:
        Advantages and returns, without gradients; 0 where nothing was sampled.  [B, T] each
    """
    if episode is not None:
        count = (episode.diff(prepend=episode[:1]) != 0).cumsum(0).bincount()  # [E]
        place = count.new_ones(int(count.max())).cumsum(0) <= count[:, None]  # [E, R], R rows side by side
        wide = [_side_by_side(tensor, place) for tensor in (values, rewards, mask)]
        both = gae(wide[0], wide[1], wide[2], gamma, lam)
        advantages, returns = (tensor.view(*place.shape, -1)[place] for tensor in both)
        return advantages, returns
    advantages, returns = values.new_zeros(mask.shape), values.new_zeros(mask.shape)
    for first in range(0, len(mask), _ROWS):
        rows = slice(first, first + _ROWS)
        advantages[rows], returns[rows] = _gae(values[rows].detach(), rewards[rows].detach(), mask[rows], gamma, lam)
    return advantages, returns


def _side_by_side(tensor: Tensor, place: Tensor) -> Tensor:
    """Put the rows [B, T] of every episode one after another, where `place` [E, R] is True.  [E, R * T]"""
    wide = tensor.new_zeros(*place.shape, tensor.shape[1])
    wide[place] = tensor.detach()
    return wide.flatten(1)


def _gae(values: Tensor, rewards: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Return advantages and returns of some rows, each an episode.  [b, T] each"""
    sampled = _bits(mask, values)
    values, rewards = _only(sampled, values), _only(sampled, rewards.to(values.dtype))
    returns = _only(sampled, rewards.add_(_next(values, rewards, mask, gamma * lam, lam), alpha=gamma))
    return returns - values, returns


def _next(values: Tensor, rewards: Tensor, mask: Tensor, decay: float, lam: float) -> Tensor:
    r"""Return :math:`U_{t'} = V_{t'} + \lambda A_{t'}`, the worth of the next sampled token; 0 after the last.  [b, T]

    Since :math:`R_t = r_t + \gamma U_{t'}`, it holds that :math:`U_t = (1 - \lambda) V_t + \lambda r_t + \gamma
    \lambda U_{t'}`: one number goes from token to token, and past a token that was not sampled as it is.
    """
    rows, width = mask.shape
    chunks = max(1, -(-width // _CHUNK))
    gain, keep = values.new_zeros(rows, chunks * _CHUNK), values.new_ones(rows, chunks * _CHUNK)
    gain[:, :width] = values.lerp(rewards, lam)
    keep[:, :width].add_(mask, alpha=decay - 1)
    gain, keep = (tensor.view(-1, _CHUNK).t().contiguous() for tensor in (gain, keep))  # [C, b * K]
    last_first = list(zip(gain.unbind(), keep.unbind(), strict=True))[::-1]
    start = gain.new_zeros(gain.shape[1])  # what a chunk is worth at its start, if nothing came after it
    for gained, kept in last_first:
        start = gained.addcmul(kept, start)
    start, through = start.view(rows, chunks), keep.prod(dim=0).view(rows, chunks)
    behind = start.new_zeros(rows, chunks)  # what comes after each chunk
    for k in reversed(range(chunks - 1)):
        behind[:, k] = start[:, k + 1].addcmul(through[:, k + 1], behind[:, k + 1])
    carried = behind.view(-1)
    for gained, kept in last_first:
        worth = gained.addcmul(kept, carried)
        gained.copy_(carried)  # in place of what is no longer needed
        carried = worth
    return gain.t().reshape(rows, -1)[:, :width]


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Shift and scale to mean 0 and standard deviation 1 over the tokens of a mask.

    Args:
        values: [B, T]
        mask: The tokens that count.  [B, T]

    Returns:
        The whitened values; 0 outside the mask, and everywhere if fewer than two tokens
        count or all of them are equal up to rounding.  [B, T]
    """
    count, counted = mask.sum(), _bits(mask, values)
    white = _only(counted, values)
    largest = white.abs().amax() if white.numel() else white.new_zeros(())
    mean = white.sum() / count.clamp(min=1)
    white = _only(counted, white.sub_(mean))
    std = (white.square().sum() / (count - 1).clamp(min=1)).sqrt()  # not norm(): that adds up less exactly
    if not std > rounding_of(largest):  # which must not turn equal values into differences
        return white.zero_()
    return white.div_(std)


def _bits(mask: Tensor, values: Tensor) -> Tensor:
    """Return all bits where a mask is True and none elsewhere, as integers of the size of the values.  [B, T]"""
    return {2: mask.short, 4: mask.int, 8: mask.long}[values.element_size()]().neg_()


def _only(bits: Tensor, values: Tensor) -> Tensor:
    """Return the values where the bits are set, and 0 elsewhere, also for what is not a number.  [B, T]

    On a processor this takes a fifth of the time of `torch.where`.
    """
    return (values.view(bits.dtype) & bits).view(values.dtype)

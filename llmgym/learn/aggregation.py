"""How much each token counts in a loss.

A loss is a sum of per-token terms, each times its weight. Weights are computed once over
the whole batch of an optimiser step, so splitting it into micro-batches changes nothing.
"""

from tensordict import TensorDictBase
from torch import Tensor

from llmgym.config.choices import Aggregation


def token_weights(
    mask: Tensor, aggregation: Aggregation, episode: Tensor | None = None, loss_scale_factor: float = 1.0
) -> Tensor:
    """Return each token's weight; 0 where `mask` is False.

    They sum up to 1 in the two modes that average over tokens, and to the mean number of
    sampled tokens in an episode, by the constant, in the other two. Episodes in which nothing
    is sampled do not count.

    Args:
        mask: The sampled tokens of the whole optimiser batch.  [B, T]
        aggregation: What counts the same.
        episode: The episode of each row, as an index; None if each row is one.  [B]
        loss_scale_factor: The constant of ``seq-mean-token-sum-norm``; no other reads it.

    Returns:
        Weights as float32; all 0 if nothing was sampled.  [B, T]
    """
    weights = mask.float()
    if aggregation == "token-mean":
        return weights / weights.sum().clamp(min=1)
    sampled = weights.sum(dim=1)  # [B]
    if episode is not None:
        sampled = sum_by_episode(sampled, episode)
    by_episode = weights / sampled.clamp(min=1)[:, None]
    episodes = by_episode.sum().clamp(min=1e-9)  # that have a token
    if aggregation == "seq-mean-token-mean":
        return by_episode / episodes
    return weights / (episodes * (loss_scale_factor if aggregation == "seq-mean-token-sum-norm" else 1.0))


def corrected_weights(batch: TensorDictBase, aggregation: Aggregation, loss_scale_factor: float = 1.0) -> Tensor:
    """Return the weights of a batch's tokens, times its ``importance_weight`` if it has one.

    Args:
        batch: ``mask`` [B, T] and ``episode`` [B] of a whole optimiser batch, and maybe ``importance_weight`` [B, T].
        aggregation: As for `token_weights`.
        loss_scale_factor: As for `token_weights`.

    Returns:
        Weights.  [B, T]
    """
    weights = token_weights(batch["mask"], aggregation, batch["episode"], loss_scale_factor)
    return weights * batch["importance_weight"] if "importance_weight" in batch else weights


def sum_by_episode(values: Tensor, episode: Tensor) -> Tensor:
    """Return for each row the sum over all rows of its episode.

    Args:
        values: [B]
        episode: The episode of each row, as an index.  [B]

    Returns:
        The sums.  [B]
    """
    index = episode - episode.min()
    return values.new_zeros(int(index.max()) + 1).index_add_(0, index, values)[index]


def unit_weights(unit: Tensor) -> Tensor:
    """Return for each row one over the number of distinct units: a loss counts every unit once, at this weight.

    Args:
        unit: The episode or pair of each row, as an index.  [B]

    Returns:
        Weights as float32.  [B]
    """
    weights: Tensor = unit.new_ones(len(unit)).float() / max(1, len(set(unit.tolist())))
    return weights

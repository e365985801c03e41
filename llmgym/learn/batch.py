"""From trajectories to tensors, and from tensors to micro-batches."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from tensordict import TensorDict

from llmgym.rollout.trajectory import Trajectory


def collate(trajectories: Sequence[Trajectory], pad_token: int = 0) -> TensorDict:
    """Pad trajectories on the right into a TensorDict of batch size [B], a row of it for each of their rows.

    The rows of an episode stand together and share its group, reward and score.

    Returns:
        - ``tokens`` [B, T] int64
        - ``mask`` [B, T] bool: the token was sampled, in an episode that has a score
        - ``log_probs`` [B, T] float32, under the sampling policy; 0 where not sampled
        - ``length`` [B] int64: tokens that are no padding
        - ``prompt_length`` [B] int64: tokens before the row's first sampled one
        - ``episode`` [B] int64: the index of the row's trajectory
        - ``group`` [B] int64
        - ``reward`` [B] float32; 0 where the score is missing
        - ``scored`` [B] bool: the score is there
    """
    rows = [(i, trajectory, row) for i, trajectory in enumerate(trajectories) for row in trajectory.rows]
    masks = [trajectory.mask[row] for _, trajectory, row in rows]
    width = max(map(len, masks))

    def padded(
        rows: list[list[int]] | list[list[bool]] | list[list[float]], fill: float, dtype: torch.dtype
    ) -> torch.Tensor:
        return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=dtype)

    scored = torch.tensor([trajectory.score is not None for _, trajectory, _ in rows])
    return TensorDict(
        {
            "tokens": padded([trajectory.tokens[row] for _, trajectory, row in rows], pad_token, torch.long),
            "mask": padded(masks, False, torch.bool) & scored[:, None],
            "log_probs": padded([trajectory.log_probs[row] for _, trajectory, row in rows], 0.0, torch.float32),
            "length": torch.tensor([len(mask) for mask in masks]),
            "prompt_length": torch.tensor([mask.index(True) if True in mask else len(mask) for mask in masks]),
            "episode": torch.tensor([i for i, _, _ in rows]),
            "group": torch.tensor([trajectory.group for _, trajectory, _ in rows]),
            "reward": torch.tensor([trajectory.score or 0.0 for _, trajectory, _ in rows], dtype=torch.float32),
            "scored": scored,
        },
        batch_size=[len(rows)],
    )


def episodes_of(batch: TensorDict) -> TensorDict:
    """Return the first row of every episode, in order: what is said of an episode stands there once."""
    new = batch["episode"][1:] != batch["episode"][:-1]
    return batch[torch.nn.functional.pad(new, (1, 0), value=True)]


def split_by_group(batch: TensorDict, parts: int) -> list[TensorDict]:
    """Split a batch whose groups stand together into `parts` of whole groups, as equal in number as can be.

    There are fewer parts if there are fewer groups.
    """
    starts = [0, *(1 + (batch["group"][1:] != batch["group"][:-1]).nonzero()[:, 0]).tolist()]
    parts = min(parts, len(starts))
    cuts = [starts[part * len(starts) // parts] for part in range(parts)] + [len(batch)]
    return [batch[start:stop] for start, stop in itertools.pairwise(cuts)]


def micro_batches(batch: TensorDict, max_tokens: int) -> Iterator[TensorDict]:
    """Split a batch [B] into runs of rows of at most `max_tokens` tokens each, padding cut off.

    A single row is never split, however long it is.
    """
    lengths = batch["length"].tolist()
    start, width = 0, 0
    for row, length in enumerate(lengths):
        if row > start and max(width, length) * (row + 1 - start) > max_tokens:
            yield _cut(batch[start:row], width)
            start, width = row, 0
        width = max(width, length)
    yield _cut(batch[start:], width)


def _cut(batch: TensorDict, width: int) -> TensorDict:
    """Cut every [B, T] tensor to the longest row."""
    return batch.apply(lambda tensor: tensor[:, :width] if tensor.ndim > 1 else tensor)

"""From trajectories to tensors, and from tensors to micro-batches."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from llmgym.errors import AlgorithmError
from llmgym.learn import ranks
from llmgym.rollout.trajectory import Trajectory


def collate(trajectories: Sequence[Trajectory], pad_token: int = 0) -> TensorDict:
    """Pad trajectories on the right into a TensorDict of batch size [B], with a row for each of their rows.

    The rows of an episode are adjacent and share its group, reward and score.

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
        - ``number`` [B] int64: that of the row's trajectory in its step, -1 if it has none
        - ``start`` [B] int64: the index of the row's first token in its trajectory

    Example:
        Two siblings begin with the prompt ``1 2``. The reply of the first has two tokens, that of the second three.
        The second has no score.

        >>> from llmgym.engines.base import Completion
        >>> short, long = Trajectory(seed=0, group=0, score=0.5), Trajectory(seed=0, group=0)
        >>> short.observe([1, 2])
        >>> short.act(Completion(0, [3, 9], [-0.5, -0.25], "stop", 0))
        >>> long.observe([1, 2])
        >>> long.act(Completion(1, [4, 5, 9], [-1.0, -0.5, -0.25], "stop", 0))
        >>> batch = collate([short, long])
        >>> batch["tokens"].tolist()
        [[1, 2, 3, 9, 0], [1, 2, 4, 5, 9]]
        >>> batch["mask"].int().tolist()  # nothing is learnt from an episode without a score
        [[0, 0, 1, 1, 0], [0, 0, 0, 0, 0]]
        >>> batch["log_probs"].tolist()
        [[0.0, 0.0, -0.5, -0.25, 0.0], [0.0, 0.0, -1.0, -0.5, -0.25]]
        >>> batch["length"].tolist(), batch["prompt_length"].tolist(), batch["episode"].tolist()
        ([4, 5], [2, 2], [0, 1])
        >>> batch["group"].tolist(), batch["reward"].tolist(), batch["scored"].tolist()
        ([0, 0], [0.5, 0.0], [True, False])
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
            "number": torch.tensor([trajectory.number for _, trajectory, _ in rows]),
            "start": torch.tensor([row.start for _, _, row in rows]),
        },
        batch_size=[len(rows)],
    )


def episodes_of(batch: TensorDict) -> TensorDict:
    """Return the first row of every episode, in order, so that what is known of an episode is there once."""
    new = batch["episode"][1:] != batch["episode"][:-1]
    return batch[torch.nn.functional.pad(new, (1, 0), value=True)]


def per_episode(values: Iterable[float]) -> Tensor:
    """Return a number or a boolean per trajectory as a tensor.  [E]"""
    return torch.tensor([*values])


def split_by_group(batch: TensorDict, parts: int, order: np.random.Generator | None = None) -> list[TensorDict]:
    """Split a batch, in which the rows of a group are adjacent, into `parts` of whole groups, as equal as possible.

    There are fewer parts if there are fewer groups. With `order` the groups are shuffled first.
    """
    starts = [*_starts(batch["group"][1:] == batch["group"][:-1]), len(batch)]
    groups = [torch.arange(start, stop) for start, stop in itertools.pairwise(starts)]
    if order is not None:
        groups = [groups[i] for i in order.permutation(len(groups))]
    parts = min(parts, len(groups))
    cuts = [part * len(groups) // parts for part in range(parts + 1)]
    return [batch[torch.cat(groups[start:stop])] for start, stop in itertools.pairwise(cuts)]


def default_micro_batch_tokens(device: torch.device) -> int:
    """Return how many tokens a forward pass should have: on a processor, no more than suit its cache."""
    return 2048 if device.type == "cpu" else 16384


def micro_batches(batch: TensorDict, max_tokens: int, unit: str = "row") -> Iterator[TensorDict]:
    """Split a batch [B] into runs of rows that pack into at most `max_tokens` tokens each, padding cut off.

    Siblings stay together where they fit.

    Args:
        batch: As `collate` returns it.
        max_tokens: What siblings share counts once.
        unit: Adjacent rows with equal values of this key are never split, however long they are;
            with ``row`` every row is a unit.
    """
    lengths, prompts = batch["length"].tolist(), batch["prompt_length"].tolist()
    new_prompt = set(_starts(_same_prompt(batch)))
    new_unit = set(range(len(batch))) if unit == "row" else set(_starts(batch[unit][1:] == batch[unit][:-1]))
    runs = [*sorted(new_prompt & new_unit), len(batch)]  # of siblings: neither prompt nor unit changes between them

    def size(first: int, behind: int, *, fresh: bool) -> int:  # tokens that the rows add
        total = 0
        for row in range(first, behind):
            shared = row not in new_prompt and not (fresh and row == first)
            total += lengths[row] - (prompts[row] if shared else 0)
        return total

    start, taken = 0, 0
    for run in itertools.pairwise(runs):
        if start < run[0] and taken + size(*run, fresh=True) > max_tokens:
            yield cut(batch[start : run[0]])
            start, taken = run[0], 0
        units = [run[0], *(row for row in range(run[0] + 1, run[1]) if row in new_unit), run[1]]
        for first, behind in itertools.pairwise(units):
            if start < first and taken + size(first, behind, fresh=False) > max_tokens:
                yield cut(batch[start:first])
                start, taken = first, 0
            taken += size(first, behind, fresh=first == start)
    yield cut(batch[start:])


def in_micro_batches(function: Callable[[TensorDict], Tensor], batch: TensorDict, max_tokens: int) -> Tensor:
    """Return a function's values per token [b, t] over the micro-batches of a batch, joined.  [B, T]

    Where several ranks learn, each computes those of its share.
    """
    tokens, first, some = batch["tokens"], 0, []
    values = torch.zeros(tokens.shape, device=tokens.device)
    for micro in micro_batches(batch, max_tokens):
        if micro["mask"].any():
            some.append((first, micro))
        first += len(micro)
    with ranks.own_share():
        for (row, micro), counts in ranks.dealt(some):
            found = function(micro)
            if counts:
                values[row : row + len(micro), : found.shape[1]] = found
    return ranks.add_up(values)


def _same_prompt(batch: TensorDict) -> torch.Tensor:
    """Tell for each row but the first whether it has the prompt of the row before.  [B-1]"""
    tokens, prompt = batch["tokens"], batch["prompt_length"]
    column = torch.arange(tokens.shape[1], device=tokens.device)
    same = (tokens[1:] == tokens[:-1]) | (column >= prompt[1:, None])
    same_prompt: torch.Tensor = same.all(dim=1) & (prompt[1:] == prompt[:-1])
    return same_prompt


def _starts(same_as_before: torch.Tensor) -> list[int]:
    """Return the rows at which something begins that the row before was not part of, the first among them."""
    return [0, *(1 + (~same_as_before).nonzero()[:, 0]).tolist()]


def cut(batch: TensorDict) -> TensorDict:
    """Cut every [B, T] tensor to the longest row."""
    width = int(batch["length"].max())
    return batch.apply(lambda tensor: tensor[:, :width] if tensor.ndim > 1 else tensor)


def as_batch(made: object, name: str) -> TensorDict | None:
    """Return what `prepare` made; None if there is nothing to learn from.

    Args:
        made: A batch, or None.
        name: Who made it, for the error message.

    Raises:
        AlgorithmError: It is neither.
    """
    if made is None:
        return None
    if not isinstance(made, TensorDict):
        raise AlgorithmError(f"{name}.prepare has to return a TensorDict or None, got {type(made).__name__}.")
    return made if len(made) else None

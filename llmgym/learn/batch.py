"""From trajectories to tensors."""

import itertools
from collections.abc import Sequence

import torch
from tensordict import TensorDict

from llmgym.rollout.trajectory import Trajectory


def collate(trajectories: Sequence[Trajectory], pad_token: int = 0) -> TensorDict:
    """Pad trajectories on the right into a TensorDict of batch size [B].

    Returns:
        - ``tokens`` [B, T] int64
        - ``mask`` [B, T] bool: the token was sampled, in an episode that has a score
        - ``log_probs`` [B, T] float32, under the sampling policy; 0 where not sampled
        - ``length`` [B] int64: tokens that are no padding
        - ``prompt_length`` [B] int64: tokens before the first reply
        - ``group`` [B] int64
        - ``reward`` [B] float32; 0 where the score is missing
        - ``scored`` [B] bool: the score is there
    """
    width = max(len(trajectory.tokens) for trajectory in trajectories)

    def padded(
        rows: list[list[int]] | list[list[bool]] | list[list[float]], fill: float, dtype: torch.dtype
    ) -> torch.Tensor:
        return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=dtype)

    scored = torch.tensor([trajectory.score is not None for trajectory in trajectories])
    mask = padded([trajectory.mask for trajectory in trajectories], False, torch.bool)
    return TensorDict(
        {
            "tokens": padded([trajectory.tokens for trajectory in trajectories], pad_token, torch.long),
            "mask": mask & scored[:, None],
            "log_probs": padded([trajectory.log_probs for trajectory in trajectories], 0.0, torch.float32),
            "length": torch.tensor([len(trajectory.tokens) for trajectory in trajectories]),
            "prompt_length": torch.tensor([trajectory.prompt_length for trajectory in trajectories]),
            "group": torch.tensor([trajectory.group for trajectory in trajectories]),
            "reward": torch.tensor([trajectory.score or 0.0 for trajectory in trajectories], dtype=torch.float32),
            "scored": scored,
        },
        batch_size=[len(trajectories)],
    )


def split_by_group(batch: TensorDict, parts: int) -> list[TensorDict]:
    """Split a batch whose groups stand together into `parts` of whole groups, as equal in number as can be.

    There are fewer parts if there are fewer groups.
    """
    starts = [0, *(1 + (batch["group"][1:] != batch["group"][:-1]).nonzero()[:, 0]).tolist()]
    parts = min(parts, len(starts))
    cuts = [starts[part * len(starts) // parts] for part in range(parts)] + [len(batch)]
    return [batch[start:stop] for start, stop in itertools.pairwise(cuts)]

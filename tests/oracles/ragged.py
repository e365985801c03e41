"""Random ragged batches of several turns, and policies whose log-probabilities are given."""

from types import SimpleNamespace
from typing import Any

import torch
from tensordict import TensorDict
from torch import nn

GROUPS, SIBLINGS, WIDTH = 4, 3, 40


class Given(nn.Module):
    """A policy whose log-probabilities are a leaf of the graph: gradients are with respect to them."""

    def __init__(self, log_probs: torch.Tensor) -> None:
        super().__init__()
        self.log_probs = nn.Parameter(log_probs)  # [B, T]

    def get_dist(self, batch: TensorDict, **kwargs: object) -> Any:
        log_probs = self.log_probs.masked_fill(~batch["mask"], 0.0)
        return SimpleNamespace(log_prob=lambda tokens: log_probs)


ALONE = SimpleNamespace(  # what TRL asks of accelerate, for one process
    num_processes=1,
    device=torch.device("cpu"),
    gather=lambda value: value,
    gather_for_metrics=lambda value: value,
    reduce=lambda value, reduction: value,
    sync_gradients=True,
)


def ragged(seed: int, rows: int = GROUPS * SIBLINGS) -> tuple[Given, TensorDict]:
    """Episodes of one to four turns after a prompt, padded on the right; the policy has moved since."""
    rng = torch.Generator().manual_seed(seed)

    def integer(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=rng))

    mask = torch.zeros(rows, WIDTH, dtype=torch.bool)
    lengths = []
    for row in range(rows):
        at = integer(1, 6)  # the prompt
        for turn in range(integer(1, 5)):
            at += integer(1, 4) if turn else 0  # what the environment says
            reply = integer(1, 6)
            mask[row, at : at + reply] = True
            at += reply
        lengths.append(at)
    assert max(lengths) <= WIDTH

    def noise(scale: float) -> torch.Tensor:
        return scale * torch.randn(rows, WIDTH, generator=rng)

    log_probs = -2 * torch.rand(rows, WIDTH, generator=rng) - 0.1
    batch = TensorDict(
        {
            "tokens": torch.zeros(rows, WIDTH, dtype=torch.long),
            "mask": mask,
            "length": torch.tensor(lengths),
            "log_probs": log_probs + noise(0.4),
            "ref_log_probs": log_probs + noise(0.5),
            "advantage": torch.randn(rows, 1, generator=rng) * mask,
            "episode": torch.arange(rows),
            "group": torch.arange(rows) // SIBLINGS,
            "reward": torch.randn(rows, generator=rng),
        },
        batch_size=[rows],
    )
    return Given(log_probs), batch


def same(ours: torch.Tensor, theirs: torch.Tensor, policy: Given) -> None:
    """Values, and gradients of the log-probabilities, agree to 1e-5."""
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(loss, policy.log_probs, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)
    assert gradients[0].any()

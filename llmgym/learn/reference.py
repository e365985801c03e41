"""Log-probabilities without gradients: of any policy, and of the one that training started from."""

import copy

import torch
from tensordict import TensorDict
from torch import Tensor

from llmgym.learn.batch import micro_batches
from llmgym.learn.policy import Policy


@torch.no_grad()
def log_probs_of(policy: Policy, batch: TensorDict, micro_batch_tokens: int) -> Tensor:
    """Return a policy's log-probability of every sampled token, 0 elsewhere.  [B, T]

    Args:
        policy: Whose.
        batch: As `Policy.get_dist` takes it, of any size.
        micro_batch_tokens: Tokens that a forward pass takes at the most, what siblings share counted once.
    """
    width = batch["tokens"].shape[1]
    rows = [policy.log_probs(micro) for micro in micro_batches(batch, micro_batch_tokens)]
    return torch.cat([torch.nn.functional.pad(row, (0, width - row.shape[1])) for row in rows])


class Reference:
    """A frozen copy of a policy, to measure how far the policy has moved.

    Args:
        policy: What to copy.
        micro_batch_tokens: As for `log_probs_of`.
    """

    def __init__(self, policy: Policy, micro_batch_tokens: int) -> None:
        self.policy = copy.deepcopy(policy).requires_grad_(False)
        self.micro_batch_tokens = micro_batch_tokens

    def log_probs(self, batch: TensorDict) -> Tensor:
        """Return the log-probability of every sampled token, 0 elsewhere.  [B, T]"""
        return log_probs_of(self.policy, batch, self.micro_batch_tokens)


def kl_from(reference_log_probs: Tensor, batch: TensorDict) -> float:
    """Return the mean KL divergence of the sampling policy from the reference, in nats by token (k3)."""
    difference = (reference_log_probs - batch["log_probs"])[batch["mask"]]
    return float((difference.expm1() - difference).mean()) if difference.numel() else 0.0

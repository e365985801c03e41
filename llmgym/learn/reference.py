"""Log-probabilities without gradients: of any policy, and of a policy as it was earlier."""

from collections.abc import Sequence

import torch
from tensordict import TensorDict
from torch import Tensor

from llmgym.learn.batch import collate, in_micro_batches
from llmgym.learn.kl import kl_estimate
from llmgym.learn.losses.units import row_log_ratios, sum_units
from llmgym.learn.policy import Policy
from llmgym.learn.sharding import part_again
from llmgym.rollout.trajectory import Trajectory


@torch.no_grad()
def log_probs_of(policy: Policy, batch: TensorDict, micro_batch_tokens: int) -> Tensor:
    """Return a policy's log-probability of every sampled token, 0 elsewhere.  [B, T]

    Args:
        policy: Whose.
        batch: As `Policy.get_dist` takes it, of any size.
        micro_batch_tokens: Tokens of a forward pass, at most; what siblings share counts once.
    """
    try:
        return in_micro_batches(policy.log_probs, batch, micro_batch_tokens)
    finally:
        part_again(policy)


class Reference:
    """A policy as it was earlier, to measure how far it has moved or to hold it back.

    Only what is trained is kept twice: all parameters, or those of an adapter. For the time of a pass they change
    places with those of the policy.

    Args:
        policy: What to remember, as it is now.
        micro_batch_tokens: As for `log_probs_of`.
    """

    def __init__(self, policy: Policy, micro_batch_tokens: int) -> None:
        self.policy = policy
        self.micro_batch_tokens = micro_batch_tokens
        self._trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        self.weights = [parameter.detach().clone() for parameter in self._trained]

    @torch.no_grad()
    def refresh(self) -> None:
        """Set the reference to the policy as it is now."""
        for weight, parameter in zip(self.weights, self._trained, strict=True):
            weight.copy_(parameter)

    def log_probs(self, batch: TensorDict) -> Tensor:
        """Return the log-probability of every sampled token, 0 elsewhere.  [B, T]"""
        self._swap()
        try:
            return log_probs_of(self.policy, batch, self.micro_batch_tokens)
        finally:
            self._swap()

    def log_ratios(self, trajectories: Sequence[Trajectory]) -> Tensor:
        """Return how much each trajectory's log-probability has changed since the reference was set.

        Returns:
            Under the policy as it is now, minus that under the reference.  [E]
        """
        device = self.policy.model.device
        if not trajectories:
            return torch.zeros(0, device=device)
        batch = collate(trajectories).to(device)
        batch["ref_log_probs"] = self.log_probs(batch)
        log_probs = log_probs_of(self.policy, batch, self.micro_batch_tokens)
        return sum_units(row_log_ratios(log_probs, batch), batch["episode"])

    @torch.no_grad()
    def _swap(self) -> None:
        """Let the weights and those of the policy change places: by value, since an engine may read the same memory."""
        for weight, parameter in zip(self.weights, self._trained, strict=True):
            current = parameter.detach().clone()
            parameter.copy_(weight)
            weight.copy_(current)


def kl_from(log_probs: Tensor, reference_log_probs: Tensor, batch: TensorDict) -> float:
    """Return the mean KL divergence of a policy from the reference, in nats per token (k3).

    Tokens that no policy sampled, as those of a demonstration, are left out. With top-p or top-k
    the mean is over what these let through: 0 where policy and reference agree on that, and
    otherwise without the tokens that were cut off.

    Args:
        log_probs: Of the policy, under the weights that sampled.  [B, T]
        reference_log_probs: Of the reference.  [B, T]
        batch: ``mask`` and ``log_probs`` [B, T], the latter NaN where no policy sampled.
    """
    sampled = batch["mask"] & batch["log_probs"].isfinite()
    log_ratio = (log_probs - reference_log_probs)[sampled]
    return float(kl_estimate(log_ratio.detach(), "k3").mean()) if len(log_ratio) else 0.0

"""`Critic`: an estimate of the rewards to come, before every sampled token."""

import copy
import math

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from llmgym.config.choices import TrunkChoice
from llmgym.learn.batch import in_micro_batches
from llmgym.learn.policy import Policy
from llmgym.learn.sharding import part_again
from llmgym.learn.trunk import Trunk


class Critic(nn.Module):
    """A value head on a trunk: one number from the hidden state before each sampled token.

    The state is the one that the token is sampled in, so it has seen every token before and
    not the token itself. The head begins at zero, and so do all values. It computes in
    float32, whatever the trunk computes in.

    Called with a TensorDict it does what TorchRL's losses ask of a critic: it adds
    ``state_value`` [B, T, 1]. Where the batch holds ``states`` [S, D], as `Trunk.states`
    returns them, it takes those.

    Args:
        trunk: What the hidden states come from: one of its own, or the policy's.
    """

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(trunk.width, 1, device=trunk.model.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @classmethod
    def of(cls, policy: Policy, trunk: TrunkChoice) -> "Critic":
        """Return a critic for a policy: on its trunk, or on a copy of it that learns by itself."""
        if trunk == "shared":
            return cls(policy.trunk)
        own = copy.deepcopy(policy.model.base_model)
        return cls(Trunk(own, gradient_checkpointing=policy.trunk.gradient_checkpointing))

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Add the values as ``state_value`` [B, T, 1]."""
        states = tensordict.get_non_tensor("states", default=None)
        if states is None:
            states = self.trunk.states(tensordict)
        mask = tensordict["mask"]
        values = self.head(states.float())[:, 0]
        spread = values.new_zeros(mask.shape).masked_scatter(mask, values)
        return tensordict.set("state_value", spread[..., None])

    def values(self, batch: TensorDictBase) -> Tensor:
        """Return the value of the state before every sampled token, 0 elsewhere.  [B, T]"""
        values: Tensor = self(batch.copy())["state_value"][..., 0]
        return values


@torch.no_grad()
def values_of(critic: Critic, batch: TensorDict, micro_batch_tokens: int) -> Tensor:
    """Return a critic's values of a batch of any size, without gradients; see `Critic.values`.  [B, T]

    Args:
        critic: Whose.
        batch: As `Trunk.states` takes it.
        micro_batch_tokens: Tokens per forward pass, at most; what siblings share counts once.
    """
    try:
        return in_micro_batches(critic.values, batch, micro_batch_tokens)
    finally:
        part_again(critic)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """Return the share of the returns' variance that the values predicted, over the tokens of a mask.

    It is 1 if they predicted all, 0 if only the mean, below 0 if they mislead, and NaN if
    there is no variance.

    Args:
        values: [B, T]
        returns: [B, T]
        mask: The tokens that count.  [B, T]
    """
    if not mask.any():
        return math.nan
    variance, rest = (part[mask].var(correction=0) for part in (returns, returns - values))
    return float(1 - rest / variance) if variance > 0 else math.nan

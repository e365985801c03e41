"""What the losses of this package have in common, and what the learner asks of them."""

from typing import Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.objectives import LossModule

from llmgym.learn.aggregation import token_weights, unit_weights

Unit = Literal["row", "episode", "pair"]
"""What a loss sums over: rows of tokens, whole episodes, or pairs of episodes."""


class LanguageModelLoss(LossModule):
    """A TorchRL loss over the sampled tokens of a batch that can be cut into micro-batches.

    `forward` takes a batch and returns a TensorDict. What begins with ``loss_`` is a sum over
    the batch's units, each times its weight, so the losses of micro-batches add up to that of
    the whole batch. Everything else is a metric without a gradient, a mean over `count`
    things. The policy's log-probabilities are left in the batch as ``policy_log_probs`` [B, T]. Losses of rewards leave
    the entropies of its distributions too, where these have some, as ``policy_entropies`` [B, T].

    Weights are made once for a whole optimiser batch and are stored in it as ``weight``. Without
    them the batch is taken to be the whole one, so that a loss can be used alone.
    """

    unit: Unit = "row"
    """What a micro-batch never splits: adjacent rows with equal values of this key."""

    reads: tuple[str, ...] = ()
    """What a batch has to hold besides that which `collate` gives it."""

    def weights(self, batch: TensorDictBase) -> Tensor:
        """Return how much each token [B, T], or each row's unit [B], counts in a whole optimiser batch."""
        if self.unit == "row":
            return token_weights(batch["mask"], "token-mean")
        return unit_weights(batch[self.unit])

    def count(self, batch: TensorDictBase) -> int:
        """Return how many sampled tokens, or units, the metrics of `forward` are means over."""
        return int(batch["mask"].sum()) if self.unit == "row" else len(set(batch[self.unit].tolist()))

    def teaches(self, batch: TensorDictBase) -> Tensor:
        """Tell which rows have a gradient at all, so that the others need no forward pass.  [B]"""
        return torch.ones_like(batch["length"], dtype=torch.bool)

    def weight_of(self, batch: TensorDictBase) -> Tensor:
        """Return the weights that a batch holds, or else compute them."""
        weight: Tensor = batch["weight"] if "weight" in batch else self.weights(batch)
        return weight

"""`Policy`: a causal language model as the actor that TorchRL's losses expect."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from llmgym.learn.trunk import Trunk
from llmgym.models.causal_lm import logits_of
from llmgym.models.self_test import Probe, self_test

_LOGITS = 2**24  # logits that exist at once: 64 MiB in float32


class Policy(nn.Module):
    """The model under training: from a batch of trajectories to distributions over their sampled tokens.

    A batch goes through the trunk packed. Logits are computed where a token was sampled and
    nowhere else, some at a time.

    Args:
        model: A causal LM.
        temperature: What the sampling logits were divided by.
        dtype: See `Trunk`.
        gradient_checkpointing: See `Trunk`.

    Raises:
        ModelError: Packed rows do not go through this architecture.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        temperature: float = 1.0,
        *,
        dtype: torch.dtype = torch.float32,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.trunk = Trunk(model, dtype=dtype, gradient_checkpointing=gradient_checkpointing)
        self.temperature = temperature
        self_test(
            model,
            self._packed_logits,
            f"Models of type {model.config.model_type!r} cannot be trained on packed rows",
        )

    @property
    def model(self) -> PreTrainedModel:
        """The causal LM."""
        return self.trunk.model

    def get_dist(self, batch: TensorDictBase, **kwargs: Any) -> "SampledTokens":
        """Return the distribution of every sampled token given what stands before it.

        Args:
            batch: ``tokens`` [B, T], ``mask`` [B, T] and ``prompt_length`` [B], padded on
                the right, as `collate` returns them.
            kwargs: What TorchRL passes besides; without effect.
        """
        states = self.trunk.states(batch)
        vocabulary = self.model.get_input_embeddings().num_embeddings
        return SampledTokens(states, self._logits, batch["mask"], rows_at_once=max(1, _LOGITS // vocabulary))

    def log_probs(self, batch: TensorDictBase) -> Tensor:
        """Return the log-probability of every sampled token, 0 elsewhere.  [B, T]"""
        return self.get_dist(batch).log_prob(batch["tokens"])

    def _packed_logits(self, probe: Probe) -> list[Tensor]:
        """Return what packed rows make of the last token of a prompt and of every token after it.  [n, V] each"""
        length = torch.tensor([len(tokens) for tokens in probe.conversations])[:, None]
        column = torch.arange(int(length.max()) + 1)
        mask = (column >= probe.prompt) & (column <= length)  # what comes after the last token is sampled, too
        tokens = [[*tokens, *[0] * (len(column) - len(tokens))] for tokens in probe.conversations]
        prompts = torch.full((len(tokens),), probe.prompt)
        batch = TensorDict({"tokens": torch.tensor(tokens), "mask": mask, "prompt_length": prompts})
        trunk = Trunk(self.model, gradient_checkpointing=self.trunk.gradient_checkpointing)
        return list(torch.split(logits_of(self.model, trunk.states(batch)), mask.sum(1).tolist()))

    def _logits(self, states: Tensor) -> Tensor:
        """Return the logits [..., V] behind hidden states [..., D], as the sampler had them."""
        with self.trunk.autocast():
            logits = logits_of(self.model, states)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits if self.temperature == 1.0 else logits / self.temperature


class SampledTokens(Distribution):
    """Categorical distributions over the vocabulary, at the sampled tokens of a batch.

    Logits are computed when something is asked of them, some rows at once, and again in the
    backward pass if they are too many to keep.

    Args:
        states: The hidden state before each sampled token, in the order of `mask`.  [N, D]
        logits_of: Gives the logits [n, V] of some of them.
        mask: Where tokens were sampled.  [B, T]
        rows_at_once: Of logits.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(
        self, states: Tensor, logits_of: Callable[[Tensor], Tensor], mask: Tensor, *, rows_at_once: int
    ) -> None:
        super().__init__(batch_shape=mask.shape, validate_args=False)
        self.states = states
        self.logits_of = logits_of
        self.mask = mask
        self.rows_at_once = rows_at_once

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of tokens [B, T]; 0 where none was sampled.  [B, T]"""

        def of_chosen(states: Tensor, chosen: Tensor) -> Tensor:
            return -nn.functional.cross_entropy(self.logits_of(states), chosen, reduction="none")

        return self._by_rows(of_chosen, value[self.mask])

    def entropy(self) -> Tensor:
        """Return the entropy in nats; 0 where nothing was sampled.  [B, T]"""

        def of_all(states: Tensor) -> Tensor:
            log_probs = self.logits_of(states).log_softmax(dim=-1)
            return -(log_probs.exp() * log_probs).sum(dim=-1)

        return self._by_rows(of_all)

    def _by_rows(self, function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
        """Apply a function to the states and more, as many rows at once as may be; spread what it gives.  [B, T]"""
        starts = range(0, max(1, len(self.states)), self.rows_at_once)
        parts = [[rows[start : start + self.rows_at_once] for rows in (self.states, *arguments)] for start in starts]
        if len(parts) == 1:
            values = function(*parts[0])
        else:
            values = torch.cat(
                [checkpoint(function, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
            )
        return values.new_zeros(self.mask.shape).masked_scatter(self.mask, values)

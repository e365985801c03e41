"""`Policy`: a causal language model as the actor that TorchRL's losses expect."""

from typing import Any

from tensordict import TensorDictBase
from torch import Tensor, nn
from transformers import PreTrainedModel

from llmgym.learn.sampled_tokens import SampledTokens
from llmgym.learn.trunk import Trunk
from llmgym.models.causal_lm import Head, logits_of
from llmgym.models.self_test import self_test


class Policy(nn.Module):
    """The model under training: from a batch of trajectories to distributions over their sampled tokens.

    A batch goes through the trunk packed. Logits are computed where a token was sampled and
    nowhere else, some at a time.

    Args:
        model: A causal LM.
        temperature: What the sampling logits were divided by.
        gradient_checkpointing: See `Trunk`.

    Raises:
        ModelError: Packed rows do not go through this architecture.
    """

    def __init__(
        self, model: PreTrainedModel, temperature: float = 1.0, *, gradient_checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.trunk = Trunk(model, gradient_checkpointing=gradient_checkpointing)
        self.temperature = temperature
        self_test(
            model,
            lambda probe: [logits_of(model, states) for states in self.trunk.probed(probe)],
            f"Models of type {model.config.model_type!r} cannot be trained on packed rows",
        )

    @property
    def model(self) -> PreTrainedModel:
        """The causal LM."""
        return self.trunk.model

    def get_dist(self, batch: TensorDictBase, **kwargs: Any) -> SampledTokens:
        """Return the distribution of every sampled token given the tokens before it.

        Args:
            batch: ``tokens`` [B, T], ``mask`` [B, T] and ``prompt_length`` [B], padded on
                the right, as `collate` returns them.
            kwargs: Other arguments that TorchRL passes; ignored.
        """
        return SampledTokens(self.trunk.states(batch), Head.of(self.model, self.temperature), batch["mask"])

    def log_probs(self, batch: TensorDictBase) -> Tensor:
        """Return the log-probability of every sampled token, 0 elsewhere.  [B, T]"""
        return self.get_dist(batch).log_prob(batch["tokens"])

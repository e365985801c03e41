"""`Policy`: a causal language model as the actor that TorchRL's losses expect."""

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from transformers import PreTrainedModel

from llmgym.learn.sampled_tokens import SampledTokens
from llmgym.learn.trunk import Trunk
from llmgym.models.causal_lm import Head, logits_of
from llmgym.models.self_test import Probe, self_test


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
            self._packed_logits,
            f"Models of type {model.config.model_type!r} cannot be trained on packed rows",
        )

    @property
    def model(self) -> PreTrainedModel:
        """The causal LM."""
        return self.trunk.model

    def get_dist(self, batch: TensorDictBase, **kwargs: Any) -> SampledTokens:
        """Return the distribution of every sampled token given what stands before it.

        Args:
            batch: ``tokens`` [B, T], ``mask`` [B, T] and ``prompt_length`` [B], padded on
                the right, as `collate` returns them.
            kwargs: What TorchRL passes besides; without effect.
        """
        return SampledTokens(self.trunk.states(batch), Head.of(self.model, self.temperature), batch["mask"])

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

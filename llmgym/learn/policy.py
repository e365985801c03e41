"""`Policy`: a causal language model as the actor that TorchRL's losses expect."""

from typing import Any, ClassVar

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.distributions import Distribution
from transformers import PretrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache

from llmgym.models.causal_lm import logits_of


class Policy(nn.Module):
    """The model under training: from a batch of trajectories to distributions over their sampled tokens.

    Logits are computed where a token was sampled and nowhere else. Rows with the same
    prompt, such as the siblings of a group, share one pass over it, gradients included.

    Args:
        model: A causal LM. It is kept in evaluation mode: dropout would make the policy
            that learns another one than the policy that sampled.
        temperature: What the sampling logits were divided by.
    """

    def __init__(self, model: PreTrainedModel, temperature: float = 1.0) -> None:
        super().__init__()
        self.model = model.eval()
        self.temperature = temperature
        self._shares_prompts = not _has_sliding_windows(model.config)

    def get_dist(self, batch: TensorDictBase, **kwargs: Any) -> "SampledTokens":
        """Return the distribution of every sampled token given what stands before it.

        Args:
            batch: ``tokens`` [B, T], ``mask`` [B, T], ``length`` [B] and ``prompt_length``
                [B], padded on the right, as `collate` returns them.
            kwargs: What TorchRL passes besides; without effect.
        """
        before = self._shared_prompt_states(batch) if self._shares_prompts else self._plain_states(batch)
        logits = logits_of(self.model, before).float() / self.temperature
        return SampledTokens(logits, batch["mask"])

    def log_probs(self, batch: TensorDictBase) -> Tensor:
        """Return the log-probability of every sampled token, 0 elsewhere.  [B, T]"""
        return self.get_dist(batch).log_prob(batch["tokens"])

    def _plain_states(self, batch: TensorDictBase) -> Tensor:
        """Return the hidden state before every sampled token, from one pass over whole rows.  [N, D]"""
        # Padding stands on the right, where causal attention hides it from every real token.
        hidden = self.model.base_model(input_ids=batch["tokens"], use_cache=False)[0]  # [B, T, D]
        states: Tensor = hidden[:, :-1][batch["mask"][:, 1:]]
        return states

    def _shared_prompt_states(self, batch: TensorDictBase) -> Tensor:
        """The same from one pass over the distinct prompts, and one over what follows them.  [N, D]"""
        tokens, prompt_length, length = batch["tokens"], batch["prompt_length"], batch["length"]
        column = torch.arange(tokens.shape[1], device=tokens.device)
        longest = int(prompt_length.max())
        in_prompt = column[:longest] < prompt_length[:, None]  # [B, P]
        prompts, prompt_of = torch.unique(tokens[:, :longest].where(in_prompt, -1), dim=0, return_inverse=True)
        cache = DynamicCache()
        prompt_hidden = self.model.base_model(input_ids=prompts.clamp(min=0), past_key_values=cache, use_cache=True)[0]
        for layer in cache.layers:
            # index_select, not indexing: its gradient adds up in a fixed order, so runs repeat.
            layer.keys, layer.values = (part.index_select(0, prompt_of) for part in (layer.keys, layer.values))

        rest = int((length - prompt_length).max())
        position = prompt_length[:, None] + column[:rest]  # [B, R]
        inside = position < length[:, None]
        position = position.where(inside, 0)
        causal = (column[:rest, None] >= column[:rest]).expand(len(tokens), -1, -1)  # [B, R, R]
        sees = torch.cat([in_prompt[:, None].expand(-1, rest, -1), causal], dim=2)[:, None]  # [B, 1, R, P+R]
        # As a bias to the scores: eager attention adds its mask, whatever its type.
        bias = torch.zeros(sees.shape, dtype=self.model.dtype, device=sees.device)
        bias.masked_fill_(~sees, torch.finfo(self.model.dtype).min)
        hidden = self.model.base_model(
            input_ids=tokens.gather(1, position), position_ids=position, attention_mask=bias, past_key_values=cache
        )[0]  # [B, R, D]
        last = (prompts >= 0).sum(dim=1) - 1
        last_of_prompt = prompt_hidden[torch.arange(len(prompts)), last].index_select(0, prompt_of)  # [B, D]
        before = torch.cat([last_of_prompt[:, None], hidden[:, :-1]], dim=1)  # [B, R, D]
        states: Tensor = before[batch["mask"].gather(1, position) & inside]
        return states


def _has_sliding_windows(config: PretrainedConfig) -> bool:
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return getattr(config, "sliding_window", None) is not None
    return any(kind != "full_attention" for kind in kinds)


class SampledTokens(Distribution):
    """Categorical distributions over the vocabulary, at the sampled tokens of a batch.

    Args:
        logits: One row per sampled token, in the order of `mask`.  [N, V]
        mask: Where tokens were sampled.  [B, T]
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, logits: Tensor, mask: Tensor) -> None:
        super().__init__(batch_shape=mask.shape, validate_args=False)
        self.logits = logits
        self.mask = mask

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of tokens [B, T]; 0 where none was sampled.  [B, T]"""
        chosen = self.logits.gather(1, value[self.mask][:, None])[:, 0] - self.logits.logsumexp(dim=-1)
        return self._spread(chosen)

    def entropy(self) -> Tensor:
        """Return the entropy in nats; 0 where nothing was sampled.  [B, T]"""
        log_probs = self.logits.log_softmax(dim=-1)
        return self._spread(-(log_probs.exp() * log_probs).sum(dim=-1))

    def _spread(self, values: Tensor) -> Tensor:
        return values.new_zeros(self.mask.shape).masked_scatter(self.mask, values)

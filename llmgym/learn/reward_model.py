"""`RewardModel`: from conversations to rewards; the agent `reward_model` trains it, and a scorer uses it."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llmgym.errors import ModelError
from llmgym.learn.batch import default_micro_batch_tokens, micro_batches
from llmgym.learn.sharding import part_again
from llmgym.learn.trunk import Trunk
from llmgym.models.causal_lm import load_reward_model
from llmgym.models.context import longest_context
from llmgym.models.self_test import self_test
from llmgym.rollout.reward_server import RewardServer, whole_conversation
from llmgym.rollout.template import ChatTemplate
from llmgym.types import Episode, Message, Score


class RewardModel(nn.Module):
    """A sequence classification model with one label, over conversations rendered by its chat template.

    A reward is what the head makes of the last token. Conversations of one task are adjacent
    in a batch and share one pass over what they begin with.

    Args:
        model: With a trunk and a linear head called `score`. It is kept in evaluation mode.
        tokenizer: With a chat template.

    Raises:
        ModelError: Packed rows do not go through this architecture.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self._trunk = Trunk(model)
        self.model = model
        self.tokenizer = tokenizer
        self.template = ChatTemplate(tokenizer)
        self._padding = model.config.get_text_config().pad_token_id
        self.context_length = min(longest_context(model.config), tokenizer.model_max_length)
        """Tokens of the longest conversation that it can read."""
        self_test(
            model,
            lambda probe: [self._rewards(states[-1:])[:, None] for states in self._trunk.probed(probe)],
            f"Models of type {model.config.model_type!r} cannot serve as reward models",
        )

    @classmethod
    def load(cls, name: str | Path, *, fresh_head: bool = False, dtype: torch.dtype = torch.float32) -> "RewardModel":
        """Load a reward model; with `fresh_head` it may be a causal LM, see `load_reward_model`."""
        return cls(*load_reward_model(name, fresh_head=fresh_head, dtype=dtype))

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of a conversation; its reward is read off the last one."""
        return whole_conversation(self.template, messages, self._padding)

    def collate(self, groups: Sequence[Sequence[list[int]]]) -> TensorDict:
        """Pad conversations on the right into a batch of as many rows as there are conversations.

        Args:
            groups: Conversations as tokens; those of one group share what all of them begin with.

        Returns:
            ``tokens`` [B, T], ``length`` [B], ``prompt_length`` [B]: the tokens shared, and
            ``mask`` [B, T], True at one place after each conversation: where its reward is
            read off.
        """
        rows = [row for group in groups for row in group]
        width = 1 + max(map(len, rows))
        shared = [_shared(group) for group in groups for _ in group]
        length = torch.tensor([len(row) for row in rows])
        return TensorDict(
            {
                "tokens": torch.tensor([[*row, *[0] * (width - len(row))] for row in rows]),
                "mask": torch.arange(width) == length[:, None],
                "length": length + 1,
                "prompt_length": torch.tensor(shared),
            },
            batch_size=[len(rows)],
        )

    def forward(self, batch: TensorDictBase) -> Tensor:
        """Return the rewards of a batch that `collate` made.  [B]"""
        return self._rewards(self._trunk.states(batch))

    def _rewards(self, states: Tensor) -> Tensor:
        """Return what the head makes of states.  [S, D] -> [S]"""
        weight = self.model.score.weight
        wide = torch.promote_types(weight.dtype, torch.float32)  # in bfloat16 close rewards would be equal
        return nn.functional.linear(states.to(wide), weight.to(wide))[:, 0].float()

    @torch.no_grad()
    def rewards(self, groups: Sequence[Sequence[list[int]]]) -> list[float]:
        """Return the reward of every conversation, in order, computed in batches that fit."""
        if not any(groups):
            return []
        limit = default_micro_batch_tokens(self.model.device)
        try:
            return torch.cat([self(part) for part in micro_batches(self.collate(groups), limit)]).tolist()
        finally:
            part_again(self)


def _shared(group: Sequence[list[int]]) -> int:
    """Return how many first tokens, at least one, all conversations of a group share."""
    least, most = min(group), max(group)  # whatever these two share, those between them do
    differ = (i for i, (a, b) in enumerate(zip(least, most, strict=False)) if a != b)
    return max(1, next(differ, min(len(least), len(most))))


def reward_scorer(name: str) -> "RewardModelScorer | RewardServer":
    """Return the scorer that ``reward_model:name`` names: a model that is loaded here, or one that a server has."""
    return RewardServer.named(name) if name.lower().startswith(("http://", "https://")) else RewardModelScorer(name)


class RewardModelScorer:
    """Scores conversations with a reward model, one rollout at a time.

    Args:
        path: A directory that `AutoModelForSequenceClassification` loads with one label, such
            as the checkpoint of the agent `reward_model`; or a name on the hub.

    Raises:
        ModelError: It does not load, or has no head for one label.
    """

    def __init__(self, path: str | Path) -> None:
        if not os.path.isdir(os.path.expanduser(path)) and str(path).count("/") != 1:
            raise ModelError(f"reward_model:{path}: no such directory, and no name on the hub such as 'owner/model'.")
        self.model = RewardModel.load(path)
        self.to("cuda" if torch.cuda.is_available() else "cpu")

    def to(self, device: str) -> None:
        """Run on a device from now on."""
        self.model.to(device)

    def score(self, episodes: Sequence[Episode]) -> list[Score]:
        """Return the reward of every episode; one longer than the model can read has none."""
        limit = self.model.context_length
        conversations = [tuple(self.model.encode(episode.messages)) for episode in episodes]
        tasks: dict[str, dict[tuple[int, ...], None]] = {}  # every conversation once: equal ones have equal rewards
        for episode, tokens in zip(episodes, conversations, strict=True):
            if len(tokens) <= limit:
                tasks.setdefault(episode.turns[0].observation, {})[tokens] = None
        distinct = [[list(tokens) for tokens in group] for group in tasks.values()]
        values = self.model.rewards(distinct)
        reward_of = dict(zip((tokens for group in tasks.values() for tokens in group), values, strict=True))
        return [self._score(tokens, reward_of.get(tokens)) for tokens in conversations]

    def _score(self, tokens: tuple[int, ...], reward: float | None) -> Score:
        if reward is None:
            limit = self.model.context_length
            return Score(None, error=f"the conversation has {len(tokens)} tokens, the reward model reads {limit}")
        if not math.isfinite(reward):
            return Score(None, error=f"the reward model gave {reward}")
        return Score(reward, kind="log_odds")

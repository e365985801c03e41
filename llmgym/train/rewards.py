"""Training a reward model: on preferences, some of which are held out to judge it by."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from llmgym.config.sections import RewardConfig
from llmgym.data.preferences import Preference
from llmgym.errors import ConfigError, DataError
from llmgym.evaluate import Evaluation
from llmgym.learn import ranks
from llmgym.learn.checkpoint import Origin, hash_of, save_checkpoint
from llmgym.learn.learner import Learner
from llmgym.learn.needs import Needs, some_tokens, training_needs
from llmgym.learn.packing import pack
from llmgym.learn.reward_model import RewardModel
from llmgym.learn.sharding import Shards
from llmgym.models.lora import plain_copy
from llmgym.statistics import wilson_interval
from llmgym.train.algorithm import OfflineAlgorithm
from llmgym.train.offline import OfflineSteps
from llmgym.train.rows import encode_pairs, tell_of_skipped, usable
from llmgym.train.setting import put, set_up, source_of
from llmgym.train.trainer import Trainer, make_learner


def reward_trainer(algorithm: OfflineAlgorithm) -> Trainer:
    """Put together what trains a reward model on preferences.

    Raises:
        DataError: There are too few preferences, or one cannot be learnt from.
    """
    config = algorithm.config
    assert isinstance(config, RewardConfig)
    set_up(config)
    student = RewardStudent(config)
    rewards = student.rewards
    skipped: list[str] | None = [] if config.data.skip_bad_rows else None
    found = algorithm.examples(skipped)
    examples = usable(found, lambda pair: encode_pairs([pair], rewards), config.data.path, skipped)
    tell_of_skipped(skipped, len(examples))
    held_out, examples = examples[: config.held_out], examples[config.held_out :]
    if not examples:
        raise DataError(
            f"{algorithm.name} expects more than the {config.held_out} preferences that are held out (--held-out), "
            f"got {len(held_out)}."
        )
    loss = algorithm.loss(rewards)
    student.shards.part(loss)
    learner = make_learner(algorithm, loss)
    path = config.data.path
    return Trainer(
        algorithm,
        student,
        learner,
        OfflineSteps(algorithm, examples, config.data, rewards, learner),
        HeldOutPairs(student, held_out),
        subject=None if path is None else path.stem,
    )


class RewardStudent:
    """A reward model with what it takes to train it.

    Args:
        config: Which model, on what device.
    """

    def __init__(self, config: RewardConfig) -> None:
        torch.manual_seed(config.run.seed)  # of the head's first weights
        path, dtype = source_of(config)
        self.rewards = RewardModel.load(path, fresh_head=True, dtype=dtype)
        self.model = self.rewards.model
        put(self.model, config)
        self.shards = Shards(self.model, wanted=config.learner.sharded)
        self._adapted = config.model.lora_rank > 0

    def begin(self, learner: Learner) -> None:
        """Do nothing: a reward model has no reference."""

    def calls(self, learner: Learner) -> Mapping[str, Callable[..., Any]]:
        """Return the functions that read parameters, which all ranks have to call if those are in shards."""
        return {"rewards": self.rewards.rewards, "needs": functools.partial(self._needs, learner)}

    def rewards_of(self, conversations: Sequence[Sequence[list[int]]]) -> list[float]:
        """Return the rewards of conversations; see `RewardModel.rewards`."""
        return self.shards.call("rewards", self.rewards.rewards, conversations)

    def hand_over(self, version: int) -> None:
        """Do nothing: nobody samples from it."""

    def needs(self, learner: Learner) -> Needs:
        """Return what a training step will take, from a forward and a backward pass over a few tokens."""
        return self.shards.call("needs", functools.partial(self._needs, learner))

    def _needs(self, learner: Learner) -> Needs:
        batch = self.rewards.collate([some_tokens(self.model, rows=2).tolist()]).to(self.model.device)
        return training_needs(
            learner.loss,
            policy=self.rewards,
            run=lambda: self.rewards(batch).sum(),
            tokens=int(pack(batch, self.model.device).tokens.numel()),
            batch_tokens=learner.micro_batch_tokens,
            reference=False,
        )

    def settled(self) -> dict[str, object]:
        """Return what options came to that are left to llmgym."""
        return {"date": self.rewards.template.now}

    def facts(self) -> dict[str, object]:
        """Return what time the chat template is told."""
        return {"date": self.rewards.template.now.isoformat()}

    def tokenizer_hash(self) -> str:
        """Return a hash of the tokenizer and its chat template."""
        return hash_of(self.rewards.tokenizer)

    def save(self, path: Path, origin: Origin) -> None:
        """Write the reward model, adapters merged into it, and its tokenizer to a new directory."""
        model = self.shards.whole()
        whole = plain_copy(model, model.dtype) if self._adapted else model
        save_checkpoint(path, whole, self.rewards.tokenizer, origin)

    def close(self) -> None:
        """Do nothing: there is no engine."""


class HeldOutPairs:
    """Judges a reward model by preferences that it does not learn from.

    Args:
        student: Whose reward model.
        pairs: The preferences.
    """

    def __init__(self, student: RewardStudent, pairs: Sequence[Preference]) -> None:
        self._student, self.pairs = student, pairs
        self.size = len(pairs)

    def evaluate(self) -> Evaluation:
        """Compare the two sides of each preference; the better one should have the larger reward.

        Returns:
            As `success` the share of pairs where it has, as `reward` by how much it is larger on average.
        """
        if not self.size:
            raise ConfigError("evaluate needs held_out of at least 1, got 0.")
        if ranks.number():
            raise ConfigError("A rank that only learns cannot evaluate: expected the first rank to be asked.")
        rewards = self._student.rewards_of(encode_pairs(self.pairs, self._student.rewards))
        margins = [chosen - rejected for chosen, rejected in zip(rewards[::2], rewards[1::2], strict=True)]
        right, count = sum(margin > 0 for margin in margins), len(margins)
        return Evaluation(
            count, right / count, *wilson_interval(right, count), sum(margins) / count, {}, 0, "pairs", "accuracy"
        )

"""`OfflineSteps`: one optimiser step on some examples; the steps of algorithms that learn from data."""

from collections.abc import Mapping, Sequence
from typing import Any

from tensordict import TensorDict

from llmgym.config.sections import Data, OfflineConfig
from llmgym.data.order import in_epochs
from llmgym.errors import DataError
from llmgym.learn import ranks
from llmgym.learn.batch import as_batch
from llmgym.learn.learner import Learner
from llmgym.learn.needs import Needs
from llmgym.train.actor import Actor, HeldOutEpisodes
from llmgym.train.algorithm import OfflineAlgorithm
from llmgym.train.local_rollouts import LocalRollouts
from llmgym.train.no_rollouts import NoRollouts
from llmgym.train.rows import conversations_of, tell_of_skipped, usable
from llmgym.train.setting import set_up
from llmgym.train.tasks import run_rows
from llmgym.train.trainer import Experience, Trainer, make_learner


def offline_trainer(algorithm: OfflineAlgorithm) -> Trainer:
    """Put together a trainer of a policy on data; its engine is used only to evaluate.

    Raises:
        DataError: There are no examples, or one cannot be learnt from.
    """
    config = algorithm.config
    assert isinstance(config, OfflineConfig)
    set_up(config)
    plays = config.held_out_episodes > 0
    held_out = config.evaluation.data or config.environment.env_kwargs.get("rows")
    rows = run_rows(config, algorithm.env_id, {"eval_data": held_out}) if plays else None
    actor = Actor(config, keeps_reference=algorithm.needs_reference, plays=plays, rows=rows)
    actor.rollouts = NoRollouts(actor.weights) if ranks.number() else LocalRollouts(actor)
    examples = _examples(algorithm, config.data, actor)
    loss = algorithm.loss(actor.policy)
    actor.shard(loss)
    learner = make_learner(algorithm, loss)
    path = config.data.path
    return Trainer(
        algorithm,
        actor,
        learner,
        OfflineSteps(algorithm, examples, config.data, actor.scribe, learner),
        HeldOutEpisodes(actor),
        subject=path.stem if path is not None and not config.held_out_episodes else None,
        sample_every=config.evaluation.sample_every,
    )


class OfflineSteps:
    """The steps of training on examples, in an order of their own in every epoch.

    Args:
        algorithm: What it makes of examples.
        examples: All of them.
        data: How many a step takes.
        writer: Turns them into tokens, see `OfflineAlgorithm.prepare`.
        learner: What takes optimiser steps.
    """

    def __init__(
        self, algorithm: OfflineAlgorithm, examples: Sequence[Any], data: Data, writer: Any, learner: Learner
    ) -> None:
        self.algorithm, self.examples, self.learner = algorithm, examples, learner
        self._size, self._writer = data.batch_size, writer
        self._device = next(learner.loss.parameters()).device

    def begin(self) -> None:
        """Do nothing: examples were checked when they were read."""

    def experience(self, step: int, last: int) -> Experience:
        """Draw a step's examples, and let the algorithm make a batch of them."""
        size = min(self._size, len(self.examples))
        seed = self.algorithm.config.run.seed
        indices = in_epochs((step - 1) * size, step * size, len(self.examples), seed)
        made = self.algorithm.prepare([self.examples[i] for i in indices], self._writer)
        batch = as_batch(made, self.algorithm.name)
        return Experience(batch, measured={"epoch": step * self._size / len(self.examples)})

    def learn(self, step: int, batch: TensorDict | None) -> dict[str, float]:
        """Complete a batch and take one optimiser step."""
        if batch is None:
            return {}
        batch = batch.to(self._device)
        if self.algorithm.needs_reference:
            batch["ref_log_probs"] = self.learner.reference.log_probs(batch)
        found = self.algorithm.complete(batch, self.learner) or {}
        update = self.learner.update(batch)
        loss = sum(value for name, value in update.items() if name.startswith("loss_"))
        return {"loss": loss, **found, **update}

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the examples of a step follow from its number."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing: examples hold nothing open."""

    def time_in_words(self, needs: Needs, steps: int) -> str:
        """Return nothing: the length of examples is known only when they are drawn."""
        return ""


def _examples(algorithm: OfflineAlgorithm, data: Data, actor: Actor) -> list[Any]:
    """Return the examples that the chat template takes and that fit the context; refuse, or leave out, the others."""
    skipped: list[str] | None = [] if data.skip_bad_rows else None
    scribe = actor.scribe

    def check(example: Any) -> None:
        if not scribe.check(conversations_of(example), example.tools):
            algorithm.prepare([example], scribe)  # which says what does not fit

    found = algorithm.examples(skipped)
    if not found:
        raise DataError(f"{algorithm.name} expects at least one example to learn from, got none.")
    actor.tell_of(next((one.tools for one in found if one.tools), ()))
    examples = usable(found, check, data.path, skipped)
    tell_of_skipped(skipped, len(examples))
    if not examples:
        raise DataError(f"{algorithm.name} expects an example that can be learnt from, got none.")
    return examples

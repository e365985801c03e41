"""The step of agents that learn from data: one optimiser step on some examples."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llmgym.config.sections import OfflineConfig
from llmgym.errors import DataError
from llmgym.rollout.trajectory import Trajectory
from llmgym.train.rows import conversations_of, tell_of_skipped, usable
from llmgym.train.training import Training

if TYPE_CHECKING:
    from llmgym.train.agent import OfflineAgent


class OfflineTraining(Training):
    """Training on examples, in an order of their own in every epoch; the engine serves evaluation alone.

    Args:
        agent: Whose configuration, examples, preparation and loss to use.

    Raises:
        DataError: There are no examples.
    """

    config: OfflineConfig

    def __init__(self, agent: OfflineAgent) -> None:
        super().__init__(agent)
        self.agent = agent
        self._skipped: list[str] | None = [] if self.config.data.skip_bad_rows else None
        self.examples = agent.examples(self._skipped)
        if not self.examples:
            raise DataError(f"{agent.name} expects at least one example to learn from, got none.")

    @property
    def subject(self) -> str:
        """What the run is called after: its data, unless it is about an environment."""
        data = self.config.data.path
        return super().subject if data is None or self.held_out_size else data.stem

    def check(self) -> None:
        """Refuse, or leave out, examples that the chat template refuses or that do not fit the context."""
        self.examples = usable(self.examples, self._check_example, self.config.data.path, self._skipped)
        tell_of_skipped(self._skipped, len(self.examples))
        if not self.examples:
            raise DataError(f"{self.agent.name} expects an example that can be learnt from, got none.")

    def _check_example(self, example: Any) -> None:
        rendered = [self.codec.template.render(conversation) for conversation in conversations_of(example)]
        # A token is a byte at least, but for what a normalizer makes of it: most rows are too short to be encoded here.
        if any(2 * len(text.encode()) > self.context_length for text in rendered):
            self.agent.prepare([example])  # which says what does not fit

    def _step(self, step: int) -> tuple[Sequence[Trajectory], dict[str, float]]:
        begun = time.perf_counter()
        indices = drawn(step, self.config.data.batch_size, len(self.examples), self.config.run.seed)
        batch = self.agent.prepare([self.examples[i] for i in indices]).to(self.model.device)
        if self.agent.needs_reference:
            batch["ref_log_probs"] = self.reference.log_probs(batch)
        found = self.agent.complete(batch, self.learner) or {}
        update = self.learner.update(batch)
        if self.held_out_size:
            self._hand_over(step)
        seconds = time.perf_counter() - begun
        loss = sum(value for name, value in update.items() if name.startswith("loss_"))
        epoch = step * self.config.data.batch_size / len(self.examples)
        return [], {"step": step, "epoch": epoch, "loss": loss, "seconds": seconds, **found, **update}


def drawn(step: int, size: int, count: int, seed: int) -> list[int]:
    """Return the examples of a step: consecutive ones of the epochs' permutations behind each other.

    Args:
        step: Counted from 1.
        size: Examples per step; no more than there are.
        count: Examples there are.
        seed: Of the permutations.
    """
    size = min(size, count)
    permutations: dict[int, list[int]] = {}
    found = []
    for position in range((step - 1) * size, step * size):
        epoch, index = divmod(position, count)
        if epoch not in permutations:
            permutations[epoch] = np.random.default_rng([seed, epoch]).permutation(count).tolist()
        found.append(permutations[epoch][index])
    return found

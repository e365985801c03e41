"""The base of algorithms that learn from written answers: where pairs come from, and how they become a batch."""

from __future__ import annotations  # torch is not imported here: `--help` of an algorithm is instant

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmgym import learn
from llmgym.config.sections import OfflineConfig, RewardConfig
from llmgym.data.preferences import Preference, generate_preferences, read_preferences
from llmgym.train.agent import OfflineAgent

if TYPE_CHECKING:
    from tensordict import TensorDict

    from llmgym.rollout.transcript import Scribe


class PreferenceAgent(OfflineAgent):
    """The base of agents that learn from pairs of a chosen and a rejected answer."""

    def examples(self, skipped: list[str] | None = None) -> Sequence[Preference]:
        """Return the pairs of ``data``, or make ``examples`` pairs from the environment."""
        return preferences_of(self.config, skipped)

    def prepare(self, examples: Sequence[Preference], writer: Scribe) -> TensorDict:
        """Collate pairs; the ``reward`` of an answer is its score, or 1 and 0 if a pair lacks a score."""
        pairs = []
        for pair in examples:
            chosen, rejected = pair.score_chosen, pair.score_rejected
            if chosen is None or rejected is None:
                chosen, rejected = 1.0, 0.0
            pairs.append(
                (
                    writer.write(pair.prompt, pair.chosen, chosen, pair.tools),
                    writer.write(pair.prompt, pair.rejected, rejected, pair.tools),
                )
            )
        return learn.collate_pairs(pairs)


def preferences_of(config: OfflineConfig | RewardConfig, skipped: list[str] | None) -> list[Preference]:
    """Return the preferences of a configuration's file, or make as many as it asks for from its environment."""
    data, task = config.data, config.environment
    if data.path is not None:
        return read_preferences(data.path, skipped)
    return generate_preferences(task.required, data.examples, config.run.seed, **task.env_kwargs)

"""What agents that learn from written answers share: where the answers come from, and how they become a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmgym.config.sections import OfflineConfig, RewardConfig
from llmgym.data.preferences import Preference, generate_preferences, read_preferences
from llmgym.errors import DataError
from llmgym.train.agent import OfflineAgent

if TYPE_CHECKING:
    from tensordict import TensorDict

    from llmgym.learn.reward_model import RewardModel
    from llmgym.rollout.trajectory import Trajectory
    from llmgym.train.training import Training
    from llmgym.types import Message


class PreferenceAgent(OfflineAgent):
    """The base of agents that learn from pairs of a chosen and a rejected answer."""

    def examples(self, skipped: list[str] | None = None) -> Sequence[Preference]:
        """Return the pairs of ``data``, or as many as ``examples`` says from the environment."""
        return preferences_of(self.config, skipped)

    def prepare(self, examples: Sequence[Preference]) -> TensorDict:
        """Collate pairs; the ``reward`` of an answer is its score, or 1 and 0 where a pair has not both scores."""
        from llmgym.learn.pairing import collate_pairs

        pairs = []
        for pair in examples:
            chosen, rejected = pair.score_chosen, pair.score_rejected
            if chosen is None or rejected is None:
                chosen, rejected = 1.0, 0.0
            pairs.append(
                (
                    write_down(self.training, pair.prompt, pair.chosen, chosen),
                    write_down(self.training, pair.prompt, pair.rejected, rejected),
                )
            )
        return collate_pairs(pairs)


def preferences_of(config: OfflineConfig | RewardConfig, skipped: list[str] | None) -> list[Preference]:
    """Return the preferences of a configuration's file, or as many as it says that are made from its environment."""
    data, task = config.data, config.environment
    if data.path is not None:
        return read_preferences(data.path, skipped)
    return generate_preferences(task.env, data.examples, config.run.seed, **task.env_kwargs)


def write_down(
    training: Training, prompt: Sequence[Message], completion: Sequence[Message], score: float = 0.0
) -> Trajectory:
    """Return a conversation as a trajectory with a score.

    Raises:
        DataError: It is longer than the context.
    """
    from llmgym.rollout.transcript import transcribe

    trajectory = transcribe(training.codec, prompt, completion, score=score)
    longest = max(row.stop - row.start for row in trajectory.rows)
    room = training.context_length
    if longest > room:
        raise DataError(
            f"An example of {longest} tokens does not fit a context of {room}: leave it out of the data, or raise "
            f"context_length, if the model can take more. It begins with {prompt[-1].content[:60]!r}."
        )
    return trajectory


def encode_pairs(preferences: Sequence[Preference], model: RewardModel) -> list[list[list[int]]]:
    """Return both sides of each preference as tokens, the chosen one first.

    Raises:
        DataError: One is longer than the model can read.
    """
    pairs = [[model.encode(pair.prompt + side) for side in (pair.chosen, pair.rejected)] for pair in preferences]
    longest = max(len(row) for pair in pairs for row in pair)
    if longest > model.context_length:
        raise DataError(
            f"A preference has a side of {longest} tokens, more than the {model.context_length} that the model "
            "reads; nothing is cut off. Leave such pairs out."
        )
    return pairs

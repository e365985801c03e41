r"""A reward model from preferences: the model of Bradley and Terry (1952), as in InstructGPT (arXiv:2203.02155).

A causal LM's trunk gets a head that reads a number from the last token of a conversation, its
reward r. Of two conversations c is preferred to d with probability :math:`\sigma(r_c - r_d)`,
and training maximises the likelihood of the preferences:

.. math:: L = -\log \sigma(r_c - r_d - m) + \lambda (r_c + r_d)^2

The margin m asks for a distance if one is known (Llama 2, arXiv:2307.09288); the second
term centres rewards at zero (Eisenstein et al., arXiv:2312.09244).

    python -m llmgym.agents.reward_model --env AIOpsTriage
    python -m llmgym.agents.opo --env AIOpsTriage --scorer reward_model:runs/reward_model-.../checkpoint
"""

from __future__ import annotations  # torch is not imported here: `--help` of an algorithm is instant

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from llmgym import learn
from llmgym.config.sections import Data, Learner, RewardConfig, Run
from llmgym.data.preferences import Preference
from llmgym.errors import DataError
from llmgym.train.agent import RewardAgent, run_command
from llmgym.train.preference_data import preferences_of
from llmgym.train.rows import encode_pairs

if TYPE_CHECKING:
    from tensordict import TensorDict


class RewardModelConfig(RewardConfig):
    """Train a reward model on preferences."""

    usual_learning_rate: ClassVar[float] = 1e-5

    run: Run = Run(steps=400)
    learner: Learner = Learner(warmup_steps=20)  # while the new head finds its direction
    data: Data = Data(examples=6600, batch_size=16)  # those held out among them

    center_coef: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the term that centres rewards at zero; 0 for none."""

    margin: bool = False
    """Ask for the margins in the data: its column `margin`, or else the difference of its scores."""


class RewardModel(RewardAgent):
    """Bradley-Terry training of a reward model; see the module for the equation."""

    name = "reward_model"
    config_class = RewardModelConfig
    config: RewardModelConfig

    def examples(self, skipped: list[str] | None = None) -> list[Preference]:
        """Read preferences, or make them; see `OfflineAgent.examples`."""
        return preferences_of(self.config, skipped)

    def prepare(self, examples: Sequence[Preference], writer: learn.RewardModel) -> TensorDict:
        """Turn preferences into a batch: two rows each, the chosen side first."""
        batch = writer.collate(encode_pairs(examples, writer))
        batch["pair"] = learn.per_episode(i for i in range(len(examples)) for _ in range(2))
        batch["chosen"] = learn.per_episode(side == 0 for _ in examples for side in range(2))
        if self.config.margin:
            batch["margin"] = learn.per_episode(margin_of(pair) for pair in examples for _ in range(2))
        return batch

    def loss(self, model: learn.RewardModel) -> learn.BradleyTerryLoss:
        """Return the loss that trains `model`."""
        return learn.BradleyTerryLoss(model, center_coef=self.config.center_coef)


def margin_of(pair: Preference) -> float:
    """Return the margin of a pair.

    Raises:
        DataError: It has neither a margin nor two scores.
    """
    if pair.margin is not None:
        return pair.margin
    if pair.score_chosen is None or pair.score_rejected is None:
        raise DataError("--margin expects a column 'margin', or 'score_chosen' and 'score_rejected', without nulls.")
    return pair.score_chosen - pair.score_rejected


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m llmgym.agents.reward_model``."""
    return run_command(RewardModel, arguments)


if __name__ == "__main__":
    sys.exit(main())

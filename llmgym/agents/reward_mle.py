r"""Maximum likelihood minus a reward; some texts call this ORPO, which is another algorithm (`llmgym.agents.orpo`).

.. math::

    L = -\frac{1}{|y_w|} \log \pi(y_w|x) - \lambda R,\quad
    R = \frac{\pi(y_w|x)\, r_w + \pi(y_l|x)\, r_l}{\pi(y_w|x) + \pi(y_l|x)}

The texts write cross-entropy minus lambda times the reward. The reward of an answer in a
file is a constant, and would change nothing; R is what the policy can expect of it, if it
has to give one of the two answers (minimum risk training, arXiv:1512.02433). Rewards are
the columns ``score_chosen`` and ``score_rejected``; if they are missing, 1 and 0.

    python -m llmgym.agents.reward_mle --data preferences.parquet
"""

from __future__ import annotations  # torch is not imported here: `--help` of an algorithm is instant

import sys
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from llmgym import learn
from llmgym.config.sections import OfflineConfig
from llmgym.train.agent import run_command
from llmgym.train.preference_data import PreferenceAgent


class RewardMLEConfig(OfflineConfig):
    """Train a language model on scored preference pairs with maximum likelihood minus a reward."""

    usual_learning_rate: ClassVar[float] = 1e-5

    reward_coef: Annotated[float, Field(ge=0)] = 1.0
    """Lambda, the weight of the expected reward; 0 is fine-tuning on the better answers alone."""


class RewardMLE(PreferenceAgent):
    """Maximum likelihood minus a reward; see the module for the equation."""

    name = "reward_mle"
    config_class = RewardMLEConfig
    config: RewardMLEConfig

    def loss(self, policy: learn.Policy) -> learn.RewardMLELoss:
        """Return the cross-entropy of the better answer minus the expected reward."""
        return learn.RewardMLELoss(policy, reward_coef=self.config.reward_coef)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m llmgym.agents.reward_mle``."""
    return run_command(RewardMLE, arguments)


if __name__ == "__main__":
    sys.exit(main())

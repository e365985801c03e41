r"""ORPO: Odds Ratio Preference Optimisation (Hong et al. 2024, arXiv:2403.07691).

Fine-tunes on the better answer of each pair and, in the same step, makes it likelier than
the worse one. There is no reference policy, so it also starts from a model that has not
been fine-tuned.

.. math::

    L = -\log P(y_w|x) - \beta \log \sigma\left(\log \frac{P(y_w|x)}{1 - P(y_w|x)}
        - \log \frac{P(y_l|x)}{1 - P(y_l|x)}\right)

with :math:`\log P(y|x)` the mean log-probability of the assistant's tokens in all turns of an
answer.

    python -m llmgym.agents.orpo --data preferences.parquet
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


class ORPOConfig(OfflineConfig):
    """Train a language model on preference pairs with ORPO."""

    usual_learning_rate: ClassVar[float] = 8e-6

    beta: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the odds ratio loss, which the paper calls lambda; 0 is fine-tuning alone."""


class ORPO(PreferenceAgent):
    """Odds Ratio Preference Optimisation; see the module for the equation."""

    name = "orpo"
    config_class = ORPOConfig
    config: ORPOConfig

    def loss(self, policy: learn.Policy) -> learn.ORPOLoss:
        """Return the cross-entropy of the better answer plus the odds ratio loss."""
        return learn.ORPOLoss(policy, beta=self.config.beta)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m llmgym.agents.orpo``."""
    return run_command(ORPO, arguments)


if __name__ == "__main__":
    sys.exit(main())

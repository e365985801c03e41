r"""DPO: Direct Preference Optimisation (Rafailov et al. 2023, arXiv:2305.18290).

Learns from pairs of a better and a worse answer, without a reward model and without
sampling: the policy's own log-ratio to a frozen reference is the reward, and a pair is
classified by it.

.. math::

    L = -\log \sigma\left(\beta \log \frac{\pi(y_w|x)}{\pi_\mathrm{ref}(y_w|x)}
        - \beta \log \frac{\pi(y_l|x)}{\pi_\mathrm{ref}(y_l|x)}\right)

In a conversation of several turns, the probability of an answer is that of all the
assistant's tokens in it.

    python -m llmgym.agents.dpo --data preferences.parquet
"""

from __future__ import annotations  # torch is not imported here: `--help` of an algorithm is instant

import sys
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from llmgym import learn
from llmgym.config.sections import OfflineConfig
from llmgym.train.agent import run_command
from llmgym.train.preference_data import PreferenceAgent


class DPOConfig(OfflineConfig):
    """Train a language model on preference pairs with DPO."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """How close the policy stays to the reference: the larger, the closer."""

    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of pairs that are assumed to be labelled the wrong way round (conservative DPO)."""


class DPO(PreferenceAgent):
    """Direct Preference Optimisation; see the module for the equation."""

    name = "dpo"
    config_class = DPOConfig
    config: DPOConfig

    needs_reference = True

    def loss(self, policy: learn.Policy) -> learn.DPOLoss:
        """Return the logistic loss of the implicit rewards."""
        return learn.DPOLoss(policy, beta=self.config.beta, label_smoothing=self.config.label_smoothing)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m llmgym.agents.dpo``."""
    return run_command(DPO, arguments)


if __name__ == "__main__":
    sys.exit(main())

r"""IPO: Identity Preference Optimisation (Azar et al. 2023, arXiv:2310.12036).

Learns from the pairs that DPO learns from, but regresses the gap between the two
log-ratios onto a fixed value, so that it stops once a pair is told apart well enough:

.. math::

    L = \left(\log \frac{\pi(y_w|x)}{\pi_\mathrm{ref}(y_w|x)}
        - \log \frac{\pi(y_l|x)}{\pi_\mathrm{ref}(y_l|x)} - \frac{1}{2\tau}\right)^2

In a conversation of several turns, the probability of an answer is that of all the
assistant's tokens in it.

    python -m llmgym.agents.ipo --data preferences.parquet
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


class IPOConfig(OfflineConfig):
    """Train a language model on preference pairs with IPO."""

    tau: Annotated[float, Field(gt=0)] = 0.1
    """How close the policy stays to the reference: it is trained to tell a pair apart by 1 / (2 tau) nats."""

    average_tokens: bool = False
    """Divide each answer's log-ratio by its number of tokens, as TRL does; the paper's equation has whole answers."""


class IPO(PreferenceAgent):
    """Identity Preference Optimisation; see the module for the equation."""

    name = "ipo"
    config_class = IPOConfig
    config: IPOConfig

    needs_reference = True

    def loss(self, policy: learn.Policy) -> learn.IPOLoss:
        """Return the squared distance of the gap from its target."""
        return learn.IPOLoss(policy, tau=self.config.tau, average_tokens=self.config.average_tokens)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m llmgym.agents.ipo``."""
    return run_command(IPO, arguments)


if __name__ == "__main__":
    sys.exit(main())

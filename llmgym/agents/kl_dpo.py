r"""DPO with a KL penalty; some texts call this KTO, which is another algorithm (`llmgym.agents.kto`).

DPO holds the policy to the reference only in how it tells the two answers of a pair apart:
both may become less likely. Here a penalty holds every token of both:

.. math::

    L = L_\mathrm{DPO} + \lambda\, \hat D_\mathrm{KL}(\pi \,\|\, \pi_\mathrm{ref}),\quad
    \hat D_\mathrm{KL} = \mathrm{mean}_t\ \tfrac{1}{2} \left(\log \frac{\pi(a_t)}{\pi_\mathrm{ref}(a_t)}\right)^2

The divergence is estimated on the tokens of the pair; `llmgym.learn.losses.kl_dpo` says why.

    python -m llmgym.agents.kl_dpo --data preferences.parquet
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


class KLDPOConfig(OfflineConfig):
    """Train a language model on preference pairs with DPO and a KL penalty."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """How close the policy stays to the reference in telling answers apart, as in DPO."""

    kl_coef: Annotated[float, Field(ge=0)] = 1.0
    """Lambda, the weight of the penalty; 0 is DPO."""


class KLDPO(PreferenceAgent):
    """DPO with a KL penalty; see the module for the equation."""

    name = "kl_dpo"
    config_class = KLDPOConfig
    config: KLDPOConfig

    needs_reference = True

    def loss(self, policy: learn.Policy) -> learn.KLDPOLoss:
        """Return DPO's loss plus the penalty."""
        return learn.KLDPOLoss(policy, beta=self.config.beta, kl_coef=self.config.kl_coef)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m llmgym.agents.kl_dpo``."""
    return run_command(KLDPO, arguments)


if __name__ == "__main__":
    sys.exit(main())

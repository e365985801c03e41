r"""Iterative DPO: the prompts are split into parts, and each is learnt from before the next is sampled.

DPO (arXiv:2305.18290) learns from pairs that some other policy wrote. Here they are the
policy's own: with the prompts split into m parts :math:`X_1 \dots X_m`, iteration t lets
:math:`\pi_t` give a group of answers to every prompt of :math:`X_t`, has them scored and
paired, and trains on the pairs with DPO, for several epochs and against :math:`\pi_t`:

.. math::

    \pi_{t+1} = \arg\min_\pi\ - \frac{1}{|P_t|} \sum_{(y_w, y_l) \in P_t} \log \sigma\left(
        \beta \log \frac{\pi(y_w|x)}{\pi_t(y_w|x)} - \beta \log \frac{\pi(y_l|x)}{\pi_t(y_l|x)}\right)

and goes on with :math:`\pi_{t+1}` (Xu et al. 2023, arXiv:2312.16682; Yuan et al. 2024,
arXiv:2401.10020). It is `llmgym.agents.opo` with few and large steps: sampling and training
each take a while, as suits an engine and a learner that share a GPU, at the price of pairs
that grow old.

    python -m llmgym.agents.iterative_dpo --env AIOpsTriage
"""

from __future__ import annotations  # torch is not imported here: `--help` of an algorithm is instant

import sys
from collections.abc import Sequence

from llmgym.agents.opo import OPO, OPOConfig
from llmgym.config.sections import Rollout, Run, Updates
from llmgym.train.agent import run_command


class IterativeDPOConfig(OPOConfig):
    """Train a language model in a text environment with iterative DPO."""

    run: Run = Run(steps=6)  # iterations: the parts that the prompts are split into
    rollout: Rollout = Rollout(prompts_per_step=64)
    updates: Updates = Updates(epochs=2, updates_per_step=8, reference_every=1)


class IterativeDPO(OPO):
    """Iterative DPO; see the module for the equation."""

    name = "iterative_dpo"
    config_class = IterativeDPOConfig
    config: IterativeDPOConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m llmgym.agents.iterative_dpo``."""
    return run_command(IterativeDPO, arguments)


if __name__ == "__main__":
    sys.exit(main())

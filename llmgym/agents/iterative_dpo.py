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

from __future__ import annotations  # torch is imported when an agent is used, so that --help is instant

import sys
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from llmgym.agents.base import run_command
from llmgym.agents.config import Positive
from llmgym.agents.opo import OPO, OPOConfig


class IterativeDPOConfig(OPOConfig):
    """Train a language model in a text environment with iterative DPO."""

    bundled_learning_rate: ClassVar[float] = 2e-4

    steps: Positive = 6
    """Iterations: the parts that the prompts are split into."""

    prompts_per_step: Positive = 64
    """Tasks of a part."""

    epochs: Positive = 2
    """Times that an iteration goes over its pairs."""

    updates_per_step: Positive = 8
    """Optimiser steps per epoch: the pairs are split into so many, by tasks."""

    reference_every: Annotated[int, Field(ge=0)] = 1
    """Iterations after which the reference policy becomes the current one; 0 keeps the one of the start."""


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

r"""SPIN: Self-Play Fine-Tuning (Chen et al. 2024, arXiv:2401.01335).

Learns from demonstrations, and from how they differ from what the policy would have said.
In each iteration :math:`\pi_t` answers tasks that a demonstration answers too, and the next
policy learns to tell the demonstration y from its own answer y':

.. math::

    \pi_{t+1} = \arg\min_\pi\ \mathbb{E}\left[ - \log \sigma\left(
        \beta \log \frac{\pi(y|x)}{\pi_t(y|x)} - \beta \log \frac{\pi(y'|x)}{\pi_t(y'|x)}\right) \right]

It ends where the two cannot be told apart: the policy has become the one that demonstrated.
No score is needed. Demonstrations are what the environment's `expert` does in the same
task; an answer is all that is said in an episode, of one turn or several.

    python -m llmgym.agents.spin --env AIOpsTriage
"""

from __future__ import annotations  # torch is not imported here: `--help` of an algorithm is instant

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from llmgym import learn
from llmgym.config.sections import OnlineConfig, Rollout, Updates
from llmgym.train.agent import OnlineAgent, run_command

if TYPE_CHECKING:
    from tensordict import TensorDict

    from llmgym.rollout.trajectory import Trajectory


class SPINConfig(OnlineConfig):
    """Train a language model in a text environment on its expert's episodes and its own, with SPIN."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """How close the policy stays to the one that answered: the larger, the closer."""

    least_group: ClassVar[int] = 1  # each answer is paired with the demonstration

    rollout: Rollout = Rollout(prompts_per_step=64, group_size=1)
    updates: Updates = Updates(reference_every=1)


class SPIN(OnlineAgent):
    """Self-play fine-tuning; see the module for the equation."""

    name = "spin"
    config_class = SPINConfig
    config: SPINConfig

    needs_reference = True
    learns_from_expert = True

    def teaches(self, siblings: Sequence[Trajectory]) -> bool:
        """Every task teaches something, whatever its scores are."""
        return True

    def prepare(self, trajectories: Sequence[Trajectory]) -> TensorDict | None:
        """Pair every episode in which something was said with the expert's of the same task."""
        expert = {shown.group: shown for shown in trajectories if shown.demonstrated}
        own = [said for said in trajectories if said.replies and not said.demonstrated]
        # The policy's own answer counts, whether or not it has a score.
        pairs = [(expert[said.group], replace(said, score=0.0)) for said in own]
        return learn.collate_pairs(pairs) if pairs else None

    def loss(self, policy: learn.Policy) -> learn.DPOLoss:
        """Return the logistic loss, which is that of DPO."""
        return learn.DPOLoss(policy, beta=self.config.beta)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m llmgym.agents.spin``."""
    return run_command(SPIN, arguments)


if __name__ == "__main__":
    sys.exit(main())

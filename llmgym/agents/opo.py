r"""OPO: Online Preference Optimisation (Guo et al. 2024, arXiv:2402.04792).

DPO (arXiv:2305.18290) on answers of the policy's own. Every task is tried by a group of G
episodes, a scorer ranks them, and the policy learns to tell the better of a pair from the
worse:

.. math::

    L = - \frac{1}{|P|} \sum_{(y_w, y_l) \in P} \log \sigma\left(
        \beta \log \frac{\pi(y_w|x)}{\pi_\mathrm{ref}(y_w|x)} -
        \beta \log \frac{\pi(y_l|x)}{\pi_\mathrm{ref}(y_l|x)}\right)

with :math:`P` the pairs of all groups: the best of a group against the worst, or each
against the next in rank. Only the order of the scores counts, not how far they are apart,
so a scorer that compares is enough. An answer is all that the agent said in an episode.

Another method has the same name: on-policy RL with the optimal reward baseline (Hao et al.
2025, arXiv:2505.23585) is an advantage estimator of GRPO here, ``optimal_baseline``.

    python -m llmgym.agents.opo --env AIOpsTriage
"""

from __future__ import annotations  # torch is not imported here: `--help` of an algorithm is instant

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from llmgym import learn
from llmgym.config.choices import PairStrategy
from llmgym.config.sections import OnlineConfig
from llmgym.train.agent import OnlineAgent, run_command

if TYPE_CHECKING:
    from tensordict import TensorDict

    from llmgym.rollout.trajectory import Trajectory


class OPOConfig(OnlineConfig):
    """Train a language model in a text environment with online preference optimisation."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """How close the policy stays to the reference: the larger, the closer."""

    pair_strategy: PairStrategy = "best_worst"
    """Which episodes of a group make pairs. `best_worst`: the best and the worst. `adjacent`: neighbours in rank."""


class OPO(OnlineAgent):
    """Online preference optimisation; see the module for the equation."""

    name = "opo"
    config_class = OPOConfig
    config: OPOConfig

    needs_reference = True

    def prepare(self, trajectories: Sequence[Trajectory]) -> TensorDict | None:
        """Pair the episodes of each group; a step without a pair teaches nothing."""
        pairs = learn.pair_by_score(trajectories, self.config.pair_strategy)
        if not pairs:
            return None
        return learn.collate_pairs([(trajectories[chosen], trajectories[rejected]) for chosen, rejected in pairs])

    def loss(self, policy: learn.Policy) -> learn.DPOLoss:
        """Return the DPO loss."""
        return learn.DPOLoss(policy, beta=self.config.beta)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m llmgym.agents.opo``."""
    return run_command(OPO, arguments)


if __name__ == "__main__":
    sys.exit(main())

r"""GRPO: Group Relative Policy Optimisation (DeepSeekMath, arXiv:2402.03300).

PPO without a critic. Every task is tried by a group of G episodes, and an episode is as
good as it is better than its siblings:

.. math::

    A_i = \frac{r_i - \mathrm{mean}(r_1 \dots r_G)}{\mathrm{std}(r_1 \dots r_G)}

    J = \sum_{i,t} w_{i,t} \min\left(\rho_{i,t} A_i,\
        \mathrm{clip}(\rho_{i,t}, 1-\epsilon_-, 1+\epsilon_+) A_i\right)
        - \beta\, D_\mathrm{KL}(\pi \,\|\, \pi_\mathrm{ref})

with :math:`\rho_{i,t}` the ratio of the policy to the one that sampled token t of episode i
(or to the training policy before the update, see `llmgym.learn.mismatch`).
In a conversation of several turns t runs over the tokens of all the agent's replies, and
over nothing else.

    python -m llmgym.agents.grpo --env AIOpsTriage
"""

from __future__ import annotations  # torch is imported when an agent is used, so that --help is instant

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from llmgym.agents.base import OnlineAgent, run_command
from llmgym.agents.config import PolicyGradientConfig
from llmgym.learn.advantages import Estimator

if TYPE_CHECKING:
    from tensordict import TensorDict

    from llmgym.learn.losses import ClippedPolicyLoss
    from llmgym.learn.policy import Policy
    from llmgym.rollout.trajectory import Trajectory


class GRPOConfig(PolicyGradientConfig):
    """Train a language model in a text environment with GRPO."""

    clip_epsilon: tuple[Annotated[float, Field(gt=0, lt=1)], Annotated[float, Field(gt=0)]] = (0.2, 0.2)
    """How far below and above 1 the ratio counts."""

    kl_coef: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL divergence to the policy that training started from; 0 for none."""

    advantage: Estimator = "group_std"
    """What an episode is compared with, and by what the difference is divided; see `llmgym.learn.advantages`."""


class GRPO(OnlineAgent):
    """Group Relative Policy Optimisation; see the module for the equation."""

    name = "grpo"
    config_class = GRPOConfig
    config: GRPOConfig

    def prepare(self, trajectories: Sequence[Trajectory]) -> TensorDict:
        """Give every sampled token of an episode the episode's advantage within its group."""
        import torch

        from llmgym.learn.advantages import ESTIMATORS
        from llmgym.learn.batch import collate, episodes_of

        batch = collate(trajectories)
        episodes = episodes_of(batch)  # a baseline counts an episode once, however many rows it has
        length = torch.tensor([trajectory.sampled_tokens for trajectory in trajectories])  # [E]
        estimate = ESTIMATORS[self.config.advantage]
        advantage = estimate(episodes["reward"], episodes["group"], episodes["scored"], length)  # [E]
        batch["advantage"] = advantage[batch["episode"]][:, None] * batch["mask"]  # [B, T]
        return batch

    @property
    def needs_reference(self) -> bool:
        """The KL term reads it."""
        return self.config.kl_coef > 0

    def loss(self, policy: Policy) -> ClippedPolicyLoss:
        """Return the clipped surrogate with a KL term."""
        from llmgym.learn.losses import ClippedPolicyLoss

        return ClippedPolicyLoss(
            policy,
            clip_epsilon=self.config.clip_epsilon,
            kl_coef=self.config.kl_coef,
            aggregation=self.config.aggregation,
            old_log_probs="log_probs" if self.config.mismatch_correction == "none" else "old_log_probs",
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m llmgym.agents.grpo``."""
    return run_command(GRPO, arguments)


if __name__ == "__main__":
    sys.exit(main())

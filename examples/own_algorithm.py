"""An algorithm of one's own: REINFORCE, in which each turn is compared with the same turn of its siblings.

llmgym train examples/own_algorithm.py:Reinforce --env AIOpsTriage --steps 10
"""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from tensordict import TensorDict

from llmgym.config.sections import PolicyGradientConfig, Updates
from llmgym.learn.batch import collate
from llmgym.learn.losses import ClippedPolicyLoss
from llmgym.learn.policy import Policy
from llmgym.rollout.trajectory import Trajectory
from llmgym.train.agent import OnlineAgent


class ReinforceConfig(PolicyGradientConfig):
    """Train a language model in a text environment with REINFORCE."""

    discount: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Discount of later turns' rewards."""

    updates: Updates = Updates(updates_per_step=1)  # on policy: each batch is learnt from once, as a whole


class Reinforce(OnlineAgent):
    """REINFORCE with a leave-one-out baseline (Kool et al. 2019) for every turn."""

    name = "reinforce"
    config_class = ReinforceConfig
    config: ReinforceConfig

    def returns(self, episode: Trajectory) -> list[float]:
        """Return what each turn earned, later turns included."""
        found, to_come = [], 0.0
        for reply in reversed(episode.replies):
            to_come = reply.reward + self.config.discount * to_come
            found.append(to_come)
        return found[::-1]

    def prepare(self, trajectories: Sequence[Trajectory]) -> TensorDict:
        """Give every sampled token of a turn the turn's return minus the mean of its siblings'."""
        batch = collate(trajectories)
        advantage = torch.zeros(batch["mask"].shape)  # [B, T]
        returns = [self.returns(one) if one.score is not None else [] for one in trajectories]
        for row, one in enumerate(trajectories):
            siblings = [i for i, other in enumerate(trajectories) if other.group == one.group and i != row]
            for turn, (own, reply) in enumerate(zip(returns[row], one.replies, strict=False)):
                others = [returns[i][turn] for i in siblings if turn < len(returns[i])]
                if others:
                    advantage[row, reply.start : reply.stop] = own - sum(others) / len(others)
        batch["advantage"] = advantage * batch["mask"]
        return batch

    def loss(self, policy: Policy) -> ClippedPolicyLoss:
        """Return the surrogate, whose ratio is 1 in the only update: its gradient is that of REINFORCE."""
        return ClippedPolicyLoss(policy, **self.config.loss_options)


if __name__ == "__main__":
    Reinforce(env="AIOpsTriage", steps=10).train()

r"""PPO: Proximal Policy Optimisation with a critic (arXiv:1707.06347), over the tokens of several turns.

A step is a sampled token, and its state is everything before it; a turn's reward is on the
turn's last token. The critic V predicts what an episode still earns (GAE, arXiv:1506.02438):

.. math:: \delta_t = r_t + \gamma V_{t'} - V_t, \qquad A_t = \delta_t + \gamma \lambda A_{t'}, \qquad R_t = A_t + V_t

with t' the next sampled token, of this turn or a later one: what the environment says in between
neither decays nor bootstraps. `llmgym.learn.losses.PPOLoss` is then minimised.

    python -m llmgym.agents.ppo --env AIOpsTriage
"""

from __future__ import annotations  # torch is not imported here: `--help` of an algorithm is instant

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from llmgym import learn
from llmgym.config.sections import PolicyGradientConfig, Positive
from llmgym.train.agent import OnlineAgent, run_command

if TYPE_CHECKING:
    from tensordict import TensorDict

    from llmgym.rollout.trajectory import Trajectory


class PPOConfig(PolicyGradientConfig):
    """Train a language model in a text environment with PPO."""

    least_group: ClassVar[int] = 1  # an episode is compared with what the critic predicted

    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Discount of rewards to come, per sampled token."""

    lam: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Lambda of GAE: 1 sums all rewards to come, 0 trusts the critic's next value."""

    clip_epsilon: tuple[Annotated[float, Field(gt=0, lt=1)], Annotated[float, Field(gt=0)]] = (0.2, 0.2)
    """How far the ratio may fall below 1 and rise above 1."""

    critic: Literal["own", "shared"] = "own"
    """Layers under the value head. `own`: a copy of the model that learns by itself. `shared`: those of the policy."""

    critic_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Learning rate of the critic's own parameters. None: 1e-5, or what suits a model that ships with llmgym."""

    value_coef: Annotated[float, Field(gt=0)] = 1.0
    """Weight of the value loss, half the squared error; it matters if layers are shared."""

    clip_value: Annotated[float, Field(gt=0)] | None = 0.2
    """How far a value may move from the value before the step. None: no bound."""

    entropy_coef: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the entropy bonus; 0 for none."""

    kl_in: Literal["reward", "loss"] = "reward"
    """Where the divergence is charged: in each token's `reward`, as k1, or in the `loss`."""

    kl_target: Annotated[float, Field(gt=0)] | None = None
    """Divergence, in nats per token, toward which `kl_coef` is adjusted. None: `kl_coef` stays as it is."""

    kl_horizon: Positive = 10_000
    """Episodes over which `kl_coef` adapts; a smaller number steers faster."""

    @field_validator("kl_target")
    @classmethod
    def _has_something_to_steer(cls, kl_target: float | None, info: ValidationInfo) -> float | None:
        objective = info.data.get("objective")
        if kl_target is not None and objective is not None and not objective.kl_coef:
            raise ValueError("steers kl_coef, which is 0 and stays 0; expected a kl_coef above 0 to start from")
        return kl_target


class PPO(OnlineAgent):
    """Proximal Policy Optimisation; see the module for the equations."""

    name = "ppo"
    config_class = PPOConfig
    config: PPOConfig
    compares_siblings = False

    def prepare(self, trajectories: Sequence[Trajectory]) -> TensorDict:
        """Give the last token of every turn the turn's reward."""
        batch = learn.collate(trajectories)
        batch["token_reward"] = learn.token_rewards(trajectories, batch["tokens"].shape[1])  # [B, T]
        return batch

    def complete(self, batch: TensorDict, learner: learn.Learner) -> dict[str, float]:
        """Add the critic's values, and the advantages and returns that follow from them."""
        assert learner.kl is not None
        assert isinstance(learner.loss, learn.PPOLoss)
        config, mask, reward, beta = self.config, batch["mask"], batch["token_reward"], learner.kl.coefficient
        learner.loss.kl_coef = beta if config.kl_in == "loss" else 0.0
        if self.needs_reference:
            log_ratio = (batch.get("old_log_probs", batch["log_probs"]) - batch["ref_log_probs"]) * mask  # k1 [B, T]
            reward = reward - beta * log_ratio if config.kl_in == "reward" else reward
            learner.kl.update(float(log_ratio[mask].mean()), episodes=len(batch["episode"][mask.any(dim=1)].unique()))
        values = learn.values_of(learner.loss.critic_network, batch, learner.micro_batch_tokens)
        advantage, returns = learn.gae(values, reward, mask, config.gamma, config.lam, episode=batch["episode"])
        batch.update({"advantage": learn.whiten(advantage, mask), "state_value": values, "value_target": returns})
        return {"kl_coef": beta, "explained_variance": learn.explained_variance(values, returns, mask)}

    @property
    def needs_reference(self) -> bool:
        """Whether the divergence from the reference is charged."""
        return self.config.objective.kl_coef > 0

    def loss(self, policy: learn.Policy) -> learn.PPOLoss:
        """Return the clipped losses of actor and critic."""
        config = self.config
        return learn.PPOLoss(
            policy,
            learn.Critic.of(policy, config.critic),
            clip_epsilon=config.clip_epsilon,
            clip_value=config.clip_value,
            value_coef=config.value_coef,
            entropy_coef=config.entropy_coef,
            **config.loss_options,
        )

    @property
    def kl(self) -> learn.FixedKL | learn.AdaptiveKL:
        """The weight of the divergence: constant, or steered to a target."""
        return learn.kl_controller(self.config.objective.kl_coef, self.config.kl_target, self.config.kl_horizon)

    @property
    def settled(self) -> dict[str, object]:
        """The critic's learning rate."""
        return {"critic_learning_rate": self.learning_rates["critic_network"]}

    @property
    def learning_rates(self) -> dict[str, float]:
        """The learning rate of the critic."""
        return {"critic_network": self.config.critic_learning_rate or 1e-5}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m llmgym.agents.ppo``."""
    return run_command(PPO, arguments)


if __name__ == "__main__":
    sys.exit(main())

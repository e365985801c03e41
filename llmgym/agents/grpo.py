r"""GRPO: Group Relative Policy Optimisation (DeepSeekMath, arXiv:2402.03300).

PPO without a critic. Every task is tried by a group of G episodes, and an episode is
compared with its siblings:

.. math::

    A_i = \frac{r_i - \mathrm{mean}(r_1 \dots r_G)}{\mathrm{std}(r_1 \dots r_G)}

    J = \sum_{i,t} w_{i,t} \min\left(\rho_{i,t} A_i,\
        \mathrm{clip}(\rho_{i,t}, 1-\epsilon_-, 1+\epsilon_+) A_i\right)
        - \beta\, D_\mathrm{KL}(\pi \,\|\, \pi_\mathrm{ref})

with :math:`\rho_{i,t}` the ratio of the policy to the one that sampled token t of episode i
(or to the training policy before the update, see `llmgym.learn.mismatch`).
In a conversation of several turns, t runs over the tokens of all the agent's replies.

Each part has variants: `advantage` chooses another baseline or scale, `aggregation` other
weights w, `ratio` one ratio per episode (GSPO), `surrogate` a weight instead of a clipped
objective (CISPO). docs/algorithms/grpo.md names the papers.

    python -m llmgym.agents.grpo --env AIOpsTriage
"""

from __future__ import annotations  # torch is not imported here: `--help` of an algorithm is instant

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from llmgym import learn
from llmgym.config.choices import Estimator, Level
from llmgym.config.sections import PolicyGradientConfig
from llmgym.train.agent import OnlineAgent, run_command

if TYPE_CHECKING:
    from tensordict import TensorDict

    from llmgym.rollout.trajectory import Trajectory


class GRPOConfig(PolicyGradientConfig):
    """Train a language model in a text environment with GRPO."""

    least_group: ClassVar[int] = 1

    advantage: Annotated[Estimator, Field(validate_default=True)] = "group_std"
    """Baseline and scale of an episode's advantage; see `llmgym.learn.advantages`."""

    surrogate: Literal["clip", "cispo"] = "clip"
    """Objective. `clip`: PPO's, with clipped ratios. `cispo`: CISPO's, whose clipped weights leave every token a
    gradient."""

    ratio: Level = "token"
    """Importance ratio per `token`, or per episode (`sequence`, GSPO)."""

    clip_epsilon: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0)]] = (0.2, 0.2)
    """How far the ratio may fall below 1 and rise above 1. If the first is 1, there is no bound below."""

    dual_clip: Annotated[float, Field(gt=1)] | None = None
    """Largest ratio where the advantage is negative (dual-clip PPO). None: no bound."""

    filter_cut_off: bool = False
    """Leave episodes with a reply that `max_tokens` cut off out of the loss, but keep them in the baseline (DAPO)."""

    @field_validator("dual_clip")
    @classmethod
    def _clips_an_objective(cls, dual_clip: float | None, info: ValidationInfo) -> float | None:
        if dual_clip is not None and info.data.get("surrogate") == "cispo":
            raise ValueError("bounds the objective of surrogate 'clip', and cispo has none; expected no dual_clip")
        return dual_clip

    @field_validator("advantage")
    @classmethod
    def _has_siblings_to_compare(cls, advantage: Estimator, info: ValidationInfo) -> Estimator:
        rollout = info.data.get("rollout")
        if rollout is not None and rollout.group_size == 1 and advantage != "reinforce_plus_plus":
            raise ValueError(
                "with group_size 1 an episode has nothing to be compared with; expected 'reinforce_plus_plus', or a "
                "larger group"
            )
        return advantage


class GRPO(OnlineAgent):
    """Group Relative Policy Optimisation; see the module for the equation."""

    name = "grpo"
    config_class = GRPOConfig
    config: GRPOConfig

    def prepare(self, trajectories: Sequence[Trajectory]) -> TensorDict:
        """Give every sampled token of an episode the episode's advantage within its group."""
        batch = learn.collate(trajectories)
        episodes = learn.episodes_of(batch)  # a baseline counts an episode once, however many rows it has
        length = learn.per_episode(trajectory.sampled_tokens for trajectory in trajectories)  # [E]
        estimate = learn.ESTIMATORS[self.config.advantage]
        advantage = estimate(episodes["reward"], episodes["group"], episodes["scored"], length)  # [E]
        if self.config.filter_cut_off:
            whole = learn.per_episode(not trajectory.cut_off for trajectory in trajectories)  # [E]
            batch["mask"] &= whole[batch["episode"]][:, None]
        batch["advantage"] = advantage[batch["episode"]][:, None] * batch["mask"]  # [B, T]
        return batch

    def teaches(self, siblings: Sequence[Trajectory]) -> bool:
        """A group teaches if its scores differ, or differ from those of other groups where these are compared too."""
        scored = any(trajectory.score is not None for trajectory in siblings)
        return scored if self.config.advantage == "reinforce_plus_plus" else super().teaches(siblings)

    @property
    def needs_reference(self) -> bool:
        """Whether the KL term reads the reference."""
        return self.config.objective.kl_coef > 0

    def loss(self, policy: learn.Policy) -> learn.LanguageModelLoss:
        """Return the surrogate with a KL term."""
        config = self.config
        options = {"clip_epsilon": config.clip_epsilon, "ratio": config.ratio, **config.loss_options}
        if config.surrogate == "cispo":
            return learn.CISPOLoss(policy, **options)
        return learn.ClippedPolicyLoss(policy, dual_clip=config.dual_clip, **options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m llmgym.agents.grpo``."""
    return run_command(GRPO, arguments)


if __name__ == "__main__":
    sys.exit(main())

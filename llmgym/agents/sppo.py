r"""SPPO: Self-Play Preference Optimisation (Wu et al. 2024, arXiv:2405.00675).

A language model plays a game against itself: an answer wins if it is preferred to another
answer of the same policy. In each iteration :math:`\pi_t` gives a group of G answers to
every task, and the next policy fits what a step of multiplicative weights towards the
equilibrium of the game would give each of them:

.. math::

    \pi_{t+1} = \arg\min_\pi\ \frac{1}{2 |Y|} \sum_{y \in Y} \left(
        \log \frac{\pi(y|x)}{\pi_t(y|x)} - \eta \left(\hat P(y \succ \pi_t | x) - \tfrac12\right) \right)^2

with :math:`\eta = 1/\beta` and :math:`\hat P` the share of its siblings that an answer beats by
its score, ties one half, or the mean probability that it does where the scorer compares.
Unlike DPO, which knows only the difference of a pair, it says of each answer how likely it
should become. An answer is all that the agent said in an episode.

    python -m llmgym.agents.sppo --env AIOpsTriage
"""

from __future__ import annotations  # torch is not imported here: `--help` of an algorithm is instant

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from llmgym import learn
from llmgym.config.choices import Preference
from llmgym.config.sections import OnlineConfig, Updates
from llmgym.rollout.scoring import kind_of
from llmgym.train.agent import OnlineAgent, run_command

if TYPE_CHECKING:
    from tensordict import TensorDict

    from llmgym.rollout.trajectory import Trajectory


class SPPOConfig(OnlineConfig):
    """Train a language model in a text environment with self-play preference optimisation."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """One over eta, the step size: the log-probability of an answer that always wins should rise by 1 / (2 beta)."""

    preference: Preference | None = None
    """How likely one answer beats another by their scores: see `llmgym.learn.win_rates`. None: `logistic` for
    scores that are log-odds, as those of a `reward_model:` are, else `strict`."""

    win_rate_threshold: Annotated[float, Field(ge=0.5, le=1)] = 0.5
    """Learn only from answers that win at least this often, or at most one minus this; 0.5 takes all answers."""

    updates: Updates = Updates(reference_every=1)


class SPPO(OnlineAgent):
    """Self-play preference optimisation; see the module for the equation."""

    name = "sppo"
    config_class = SPPOConfig
    config: SPPOConfig

    needs_reference = True

    def prepare(self, trajectories: Sequence[Trajectory]) -> TensorDict | None:
        """Give every answer its win rate against its siblings; keep those that win, or lose, often enough."""
        batch = learn.collate(trajectories)
        episodes = learn.episodes_of(batch)
        score, scored = episodes["reward"], episodes["scored"]  # [E]
        kind = kind_of(trajectories)
        if kind == "win_rate":
            win_rate = score.where(scored, float("nan"))
        else:
            preference = self.config.preference or ("logistic" if kind == "log_odds" else "strict")
            win_rate = learn.win_rates(score, episodes["group"], scored, preference)
        batch["win_rate"] = win_rate[batch["episode"]]
        batch = batch[learn.is_clear(batch["win_rate"], self.config.win_rate_threshold)]
        return batch if len(batch) else None

    def loss(self, policy: learn.Policy) -> learn.SPPOLoss:
        """Return the squared loss with ``eta = 1 / beta``."""
        return learn.SPPOLoss(policy, eta=1 / self.config.beta)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m llmgym.agents.sppo``."""
    return run_command(SPPO, arguments)


if __name__ == "__main__":
    sys.exit(main())

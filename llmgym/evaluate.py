"""How well a policy does on tasks that it was not trained on."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmgym.config.sections import Sampling
from llmgym.rollout.player import Player
from llmgym.rollout.task import Task
from llmgym.rollout.trajectory import Trajectory
from llmgym.statistics import wilson_interval


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Attributes:
        episodes: Episodes played, or pairs of them compared.
        success: Share that succeeded as their environments see it, whatever scored them, and
            the ends of its 95 % interval (Wilson); of those whose environment did not fail.
        success_low: See `success`.
        success_high: See `success`.
        reward: Mean reward of those that have a score.
        parts: Mean of every named part of the score.
        missing: Episodes without a score.
        unit: What was judged: ``"episodes"`` played, or ``"pairs"`` told apart.
        measure: What a success is called.
        step: Training steps before it; None if it is not of a run.
    """

    episodes: int
    success: float
    success_low: float
    success_high: float
    reward: float
    parts: dict[str, float]
    missing: int
    unit: str = "episodes"
    measure: str = "success"
    step: int | None = None


def evaluate(player: Player, tasks: Sequence[Task], sampling: Sampling, seed: int) -> Evaluation:
    """Play one episode per task, and sum up; `seed` is that of sampling."""
    return summarise(player.collect(tasks, sampling, seed))


def summarise(trajectories: Sequence[Trajectory]) -> Evaluation:
    """Sum up finished episodes."""
    scored = [trajectory for trajectory in trajectories if trajectory.score is not None]
    names = dict.fromkeys(name for trajectory in trajectories for name in trajectory.parts)
    judged = sum(not trajectory.failed for trajectory in trajectories)
    successes = sum(trajectory.succeeded for trajectory in trajectories)
    low, high = wilson_interval(successes, judged) if judged else (math.nan, math.nan)
    return Evaluation(
        episodes=len(trajectories),
        success=successes / judged if judged else math.nan,
        success_low=low,
        success_high=high,
        reward=_mean([trajectory.score for trajectory in scored if trajectory.score is not None]),
        parts={name: _mean([t.parts[name] for t in trajectories if name in t.parts]) for name in names},
        missing=len(trajectories) - len(scored),
    )


def length_correlation(scored: Sequence[Trajectory]) -> float:
    """Return how the reward and the number of sampled tokens go together within groups; 0 where nothing differs.

    Args:
        scored: Episodes that have a score.
    """
    groups: dict[int, list[Trajectory]] = {}
    for one in scored:
        groups.setdefault(one.group, []).append(one)
    rewards, lengths = [np.zeros(0)], [np.zeros(0)]
    for siblings in groups.values():
        reward = np.array([one.score for one in siblings], dtype=np.float64)
        length = np.array([one.sampled_tokens for one in siblings], dtype=np.float64)
        rewards.append(reward - reward.mean())
        lengths.append(length - length.mean())
    reward, length = np.concatenate(rewards), np.concatenate(lengths)
    norm = float(np.linalg.norm(reward) * np.linalg.norm(length))
    return float(reward @ length) / norm if norm > 0 else 0.0


def share_repeated(scored: Sequence[Trajectory]) -> float:
    """Return the share of episodes in which the agent says word by word what it says in another one."""
    counts = Counter(map(replies_of, scored))
    return sum(count for count in counts.values() if count > 1) / max(1, len(scored))


def replies_of(trajectory: Trajectory) -> str:
    """Return all that an agent said in an episode."""
    return "\n".join(message.content for message in trajectory.messages if message.role == "assistant")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan

"""What episodes were like: how well a policy does on tasks that it was not trained on, and what it did in training."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    judged = [one.succeeded for one in trajectories if not one.failed]
    low, high = wilson_interval(sum(judged), len(judged)) if judged else (math.nan, math.nan)
    scores = [one.score for one in trajectories if one.score is not None]
    return Evaluation(
        episodes=len(trajectories),
        success=_mean(judged),
        success_low=low,
        success_high=high,
        reward=_mean(scores),
        parts=_parts(trajectories),
        missing=len(trajectories) - len(scores),
    )


def _parts(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Return the mean of every named part of the score."""
    names = dict.fromkeys(name for one in trajectories for name in one.parts)
    return {name: _mean([one.parts[name] for one in trajectories if name in one.parts]) for name in names}


def episode_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Return what a training step's episodes were like; llmgym/report/metrics.py says what each name means.

    What there is nothing to average over, such as the length of replies that were cut off, is left out, but for the
    mean reward and the share of successes, which are then NaN.
    """
    scored = [one for one in trajectories if one.score is not None]
    scores = [one.score for one in scored if one.score is not None]
    first_seat = min((one.seat for one in trajectories), default=0)  # of an episode of several
    endings = Counter(one.ending for one in trajectories if one.ending is not None)
    count = max(1, len(trajectories))
    sampled = sum(one.sampled_tokens for one in trajectories)
    return {
        "reward": _mean(scores),
        **spread("reward", scores, "std", "min", "p10", "p90", "max"),
        "success": _mean([one.succeeded for one in trajectories if not one.failed]),
        **{f"part/{name}": value for name, value in _parts(trajectories).items() if name != "success"},
        **_lengths(trajectories),
        "scores_missing": len(trajectories) - len(scored),
        "length_correlation": length_correlation(scored),
        "repeated": share_repeated(scored),
        "prompts_overlong": sum(one.overlong for one in trajectories),
        "env_errors": endings["env_error"],
        "env_retries": sum(one.retries for one in trajectories if one.seat == first_seat),
        "env_timeouts": endings["env_timeout"],
        **{f"ending/{name}": number / count for name, number in sorted(endings.items())},
        "entropy": -sum(sum(one.log_probs) for one in trajectories) / max(1, sampled),
    }


def _lengths(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Return how long replies, episodes and prompts were; what a limit on tokens cut off apart from what ended."""
    effective = [one for one in trajectories if not one.failed]
    replies = [(reply.stop - reply.start, reply.finish_reason) for one in trajectories for reply in one.replies]
    kept = [reply.stop - reply.start for one in effective for reply in one.replies]
    ended = [length for length, reason in replies if reason == "stop"]
    cut = [length for length, reason in replies if reason == "length"]
    episodes = [(one.sampled_tokens, _is_cut_off(one)) for one in trajectories]
    whole = [length for length, is_cut in episodes if not is_cut]
    parted = [length for length, is_cut in episodes if is_cut]
    turns = [len(one.replies) for one in trajectories]
    first = [one.replies[0].start if one.replies else len(one.tokens) for one in trajectories]
    count = max(1, len(trajectories))
    return {
        "reply_tokens": sum(length for length, _ in replies) / max(1, len(replies)),
        **spread("reply_tokens", [length for length, _ in replies], "min", "max"),
        **spread("reply_tokens/ended", ended, "mean", "max"),
        **spread("reply_tokens/cut_off", cut, "mean", "max"),
        **spread("reply_tokens/effective", kept, "mean"),
        "replies_cut_off": len(cut) / max(1, len(replies)),
        **spread("episode_tokens", [length for length, _ in episodes], "min", "max"),
        **spread("episode_tokens/ended", whole, "mean", "min", "max"),
        **spread("episode_tokens/cut_off", parted, "mean", "max"),
        **spread("episode_tokens/effective", [one.sampled_tokens for one in effective], "mean", "max"),
        "episodes_cut_off": len(parted) / count,
        "episodes_failed": 1 - len(effective) / count,
        "episodes_silent": turns.count(0) / count,
        **spread("turns", turns, "mean", "min", "max"),
        **spread("turns/effective", [len(one.replies) for one in effective], "mean"),
        **spread("prompt_tokens", first, "mean", "min", "max"),
        **spread("later_tokens", [len(one.tokens) - at for one, at in zip(trajectories, first, strict=True)]),
        "tokens": sum(len(one.tokens) for one in trajectories),
    }


def _is_cut_off(trajectory: Trajectory) -> bool:
    """Tell whether a limit on tokens ended an episode: that of a reply, of the episode, or of the context."""
    at_last = bool(trajectory.replies) and trajectory.replies[-1].finish_reason == "length"
    return at_last or trajectory.ending in ("context", "max_tokens")


_OF: Mapping[str, Callable[[Any], Any]] = {
    "mean": np.mean,
    "std": lambda values: np.std(values, ddof=1),
    "min": np.min,
    "p10": lambda values: np.percentile(values, 10),
    "p90": lambda values: np.percentile(values, 90),
    "max": np.max,
}


def spread(name: str, values: Sequence[float] | NDArray[np.floating[Any]], *kinds: str) -> dict[str, float]:
    """Return what values are like, under names such as ``name/max``, and their mean under the name alone.

    Args:
        name: Of the values.
        values: None of them is padding. Without any, nothing is returned.
        kinds: ``mean``, ``std`` (of a sample: left out for fewer than two values), ``min``, ``p10``, ``p90`` or
            ``max``; by default mean, min and max.

    Examples:
        >>> spread("turns", [1, 2, 6])
        {'turns': 3.0, 'turns/min': 1.0, 'turns/max': 6.0}
    """
    kinds = tuple(kind for kind in kinds or ("mean", "min", "max") if len(values) > (kind == "std"))
    return {name if kind == "mean" else f"{name}/{kind}": float(_OF[kind](values)) for kind in kinds}


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

"""`HackWatch`: signs that a policy earns its reward by something else than the task.

Three things are looked at, over the first and the newest `WINDOW` steps of a run:

- **Length.** Within groups, longer replies earn more, and replies have become half as long again, while successes have
  not become more frequent.
- **Repetition.** Nearly all episodes repeat another one word by word, many more than at the start, and most of them are
  no successes.
- **A measure that falls.** The reward has risen, and what is only reported, a scorer of weight 0 or the environment's
  success where a scorer took its place, has fallen, both by more than chance explains.

Each is told once, with episodes that show it.
"""

import itertools
import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from llmgym.evaluate import Evaluation, length_correlation, replies_of, share_repeated
from llmgym.report.console import notify
from llmgym.rollout.trajectory import Trajectory

WINDOW = 5
"""Steps that are taken together."""

CORRELATED = 0.5
"""Correlation of reward and length within groups, from which on length is suspected."""

LONGER = 1.5
"""How many times as long replies have to be as at the start."""

REPEATED = 0.9
"""Share of episodes that repeat others, from which on repetition is suspected."""

MORE = 0.2
"""By how much that share has to have grown: few answers may be possible."""

RARELY = 0.5
"""Share of successes, below which it is."""

SURE = 4.0
"""Standard errors by which means have to differ."""

Metrics = dict[str, float]


class HackWatch:
    """Watches the episodes of a run, as a sink of its journal.

    Args:
        reported: Names of parts that do not count for the reward, such as scorers of weight 0.
        judged: Whether a scorer took the place of the environment's own score, so that its success does not either.
    """

    def __init__(self, reported: Sequence[str] = (), *, judged: bool = False) -> None:
        self._reported = [*reported, *(["success"] if judged else [])]
        self._first: list[Metrics] = []
        self._newest: deque[Metrics] = deque(maxlen=WINDOW)
        self._told: set[str] = set()
        self._steps = 0

    def note_step(self, number: int, trajectories: Sequence[Trajectory], metrics: Mapping[str, float]) -> None:
        """Look at the episodes of a step, and tell what is new."""
        for sign in self.look(trajectories):
            notify(f"Step {int(metrics['step'])}: {sign}")

    def note_evaluation(self, label: str, evaluation: Evaluation) -> None:
        """Learn nothing: it is the episodes of training that are looked at."""

    def close(self, metrics: Sequence[Mapping[str, float]], evaluations: Mapping[str, Evaluation]) -> None:
        """Do nothing: all was told as it was seen."""

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen so far."""
        return {"first": self._first, "newest": list(self._newest), "told": sorted(self._told), "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._first, self._steps = list(state["first"]), state["steps"]
        self._newest, self._told = deque(state["newest"], maxlen=WINDOW), set(state["told"])

    def look(self, trajectories: Sequence[Trajectory]) -> list[str]:
        """Look at the episodes of a step; return what a user should be told now."""
        scored = [one for one in trajectories if one.score is not None and one.replies]
        if not scored:
            return []
        step = _means(scored, self._reported)
        step |= {"length_correlation": length_correlation(scored), "repeated": share_repeated(scored)}
        if len(self._first) < WINDOW:
            self._first.append(step)
        self._newest.append(step)
        self._steps += 1
        signs = dict(self._signs(scored)) if self._steps >= 2 * WINDOW else {}
        new = [said for sign, said in signs.items() if sign not in self._told]
        self._told |= signs.keys()
        return new

    def _signs(self, scored: Sequence[Trajectory]) -> Iterator[tuple[str, str]]:
        """Yield each sign that is there, with a sentence about it."""
        first, newest = list(self._first), list(self._newest)
        longer = _mean(newest, "tokens") / max(1.0, _mean(first, "tokens"))
        correlation = _mean(newest, "length_correlation")
        if correlation >= CORRELATED and longer >= LONGER and not _rose(first, newest, "success"):
            longest = sorted(scored, key=lambda one: (one.score or 0.0, one.sampled_tokens), reverse=True)
            yield (
                "length",
                f"Longer replies earn more (correlation {correlation:.2f}), and replies are {longer:.1f} times as long "
                f"as at the start: does the reward pay for length? See {_named(longest)}.",
            )
        repeated = _mean(newest, "repeated")
        if repeated >= max(REPEATED, _mean(first, "repeated") + MORE) and _mean(newest, "success") < RARELY:
            (said, count), *_ = Counter(map(replies_of, scored)).most_common(1)
            those = [one for one in scored if replies_of(one) == said]
            yield (
                "repeated",
                f"{repeated:.0%} of episodes repeat others word by word, one reply {count} times, and most of them are "
                f"no successes: is there a reply that earns something anywhere? See {_named(those)}.",
            )
        for name in self._reported:
            if _rose(first, newest, "reward") and _rose(newest, first, name):
                before, now = _mean(first, name), _mean(newest, name)
                worst = sorted(scored, key=lambda one: (-(one.score or 0.0), one.parts.get(name, 0.0)))
                yield (
                    name,
                    f"The reward rose from {_mean(first, 'reward'):.3f} to {_mean(newest, 'reward'):.3f}, while "
                    f"{name!r} fell from {before:.3f} to {now:.3f}: the reward may pay for something else than what "
                    f"you want. See {_named(worst)}.",
                )


def _named(trajectories: Sequence[Trajectory]) -> str:
    """Name the first episodes, by what finds them in the files of a run."""
    seeds = dict.fromkeys(f"seed {one.seed}" for one in trajectories)
    return ", ".join(itertools.islice(seeds, 3))


def _means(scored: Sequence[Trajectory], names: Sequence[str]) -> Metrics:
    """Return means over the episodes of a step, and what is needed for their standard errors."""
    found: Metrics = {"tokens": float(np.mean([one.sampled_tokens for one in scored]))}
    for name in {"reward", "success", *names}:
        values = [one.score if name == "reward" else one.parts.get(name) for one in scored]
        known = [float(value) for value in values if value is not None]
        if known:
            found[name] = float(np.mean(known))
            found[f"{name} error"] = float(np.std(known)) / math.sqrt(len(known))
    return found


def _mean(steps: Sequence[Mapping[str, float]], name: str) -> float:
    return float(np.mean([step.get(name, 0.0) for step in steps]))


def _rose(before: Sequence[Metrics], after: Sequence[Metrics], name: str) -> bool:
    """Tell whether a mean is higher than before by more than chance explains."""
    if any(name not in step for step in (*before, *after)):
        return False
    errors = [step[f"{name} error"] for step in (*before, *after)]
    error = math.sqrt(sum(one * one for one in errors)) / WINDOW
    return _mean(after, name) - _mean(before, name) > SURE * error

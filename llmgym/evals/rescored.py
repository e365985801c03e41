"""`Rescored`: what another scorer made of stored episodes."""

import itertools
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from llmgym.evals.stored import TaskKey
from llmgym.rollout.trajectory import Trajectory


class Again(NamedTuple):
    """An episode that was scored again.

    Attributes:
        task: What it is about.
        sample: Which of the task's stored samples, counted from 0.
        before: The episode as it was.
        after: The same with its new score.
    """

    task: TaskKey
    sample: int
    before: Trajectory
    after: Trajectory

    @property
    def scores(self) -> tuple[float, float] | None:
        """Both scores; None if one is missing."""
        first, second = self.before.score, self.after.score
        return None if first is None or second is None else (first, second)


@dataclass(frozen=True)
class Rescored:
    """Episodes with the scores that another scorer gave them.

    Attributes:
        name: What the user calls the episodes.
        episodes: Those that were scored again, by task.
        unfinished: Episodes that were left out because their environment never ended them.
        changed: Episodes that were left out because their environment no longer says what it said.
    """

    name: str
    episodes: Sequence[Again]
    unfinished: int
    changed: int

    def plain(self, show: int) -> dict[str, Any]:
        """Return what the scorer changed, as JSON has it.

        Args:
            show: Episodes whose score changed most: so many that fell, and so many that rose.
        """
        moved = sorted((both[1] - both[0], place) for place, one in enumerate(self.episodes) if (both := one.scores))
        fell = [one for one in moved if one[0] < 0][:show]
        rose = [one for one in sorted(moved, key=lambda one: (-one[0], one[1])) if one[0] > 0][:show]
        return {
            "name": self.name,
            "episodes": len(self.episodes),
            "tasks": len({one.task for one in self.episodes}),
            "unfinished": self.unfinished,
            "changed": self.changed,
            "before": _told([one.before for one in self.episodes]),
            "after": _told([one.after for one in self.episodes]),
            "pairs": self._pairs(),
            "largest": [_shown(self.episodes[place]) for _, place in fell + rose],
        }

    def _pairs(self) -> dict[str, int]:
        """Return how pairs of a task's episodes are ordered: what a baseline of siblings learns from."""
        found = dict.fromkeys(("same_order", "other_order", "only_before", "only_after", "neither"), 0)
        for _, group in itertools.groupby(self.episodes, key=lambda one: one.task):
            scored = [both for one in group if (both := one.scores) is not None]
            for (a, x), (b, y) in itertools.combinations(scored, 2):
                order = (a > b) - (a < b), (x > y) - (x < y)
                if all(order):
                    found["same_order" if order[0] == order[1] else "other_order"] += 1
                else:
                    found["only_before" if order[0] else "only_after" if order[1] else "neither"] += 1
        return found


def _shown(one: Again) -> dict[str, Any]:
    return {
        "task": str(one.task),
        "sample": one.sample,
        "before": one.before.score,
        "after": one.after.score,
        "reply": next(said.content for said in reversed(one.after.messages) if said.role == "assistant"),
    }


def _told(episodes: Sequence[Trajectory]) -> dict[str, Any]:
    scores = [one.score for one in episodes if one.score is not None]
    reasons = Counter(one.score_error for one in episodes if one.score_error is not None)
    names = dict.fromkeys(name for one in episodes for name in one.parts)
    values = {name: [one.parts[name] for one in episodes if name in one.parts] for name in names}
    return {
        "reward": statistics.fmean(scores) if scores else None,
        "unscored": len(episodes) - len(scores),
        "reason": reasons.most_common(1)[0][0] if reasons else None,
        "parts": {name: statistics.fmean(own) for name, own in values.items()},
    }

"""`Limits`: how many episodes may come to nothing before something else must be wrong."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llmgym.errors import ContextOverflowError, FailureRateError
from llmgym.rollout.trajectory import Trajectory

_FEW = 20  # a share of fewer says little
_NONE_OF = 4  # but none of so many says enough


class Limits:
    """Counts the episodes of all rollouts so far.

    Args:
        max_overlong: Largest share of tasks that may not fit the context, of all so far and at least `_FEW`; but where
            the first `_NONE_OF` do not, none will.
        max_failure_rate: Largest share of episodes that may be without a score because their environment failed or the
            scorer had none for them, counted in the same way.
        needs_scores: Whether an episode that nobody could score counts as failed. One without a reply of a server does
            not: whoever asks the server counts those.
    """

    def __init__(self, max_overlong: float = 0.25, max_failure_rate: float = 0.2, *, needs_scores: bool = True) -> None:
        self._needs_scores = needs_scores
        self._overlong, self._failed = _Tally(max_overlong), _Tally(max_failure_rate, all_may=max_failure_rate == 1)

    def count(self, trajectories: Sequence[Trajectory]) -> None:
        """Count some more.

        Raises:
            ContextOverflowError: More first observations leave no room for a reply than may do so.
            FailureRateError: More episodes are without a score, and not for being too long, than may be.
        """
        overlong = {trajectory.group: trajectory for trajectory in trajectories if trajectory.overlong}
        if self._overlong.too_many(len(overlong), len({trajectory.group for trajectory in trajectories})):
            example = next(iter(overlong.values()))
            raise ContextOverflowError(
                f"The first observations of {self._overlong} tasks leave no room for a reply: expected a share of at "
                f"most {self._overlong.share:g} (max_overlong). In one of them, {example.score_error}. "
                "Raise context_length, if the model can take more, or shorten the task."
            )
        lost = [one for one in trajectories if one.failed or (self._needs_scores and one.unscored)]
        failed = [one for one in lost if one.ending != "no_reply"]
        if self._failed.too_many(len(failed), len(trajectories)):
            reasons = "\n".join(f"{times} times: {example}" for times, example in most_frequent(failed))
            raise FailureRateError(
                f"{self._failed} episodes have no score since something failed: expected a share of at most "
                f"{self._failed.share:g} (max_failure_rate). The most frequent reasons:\n{reasons}"
            )

    def state_dict(self) -> dict[str, list[int]]:
        """Return how much went wrong so far."""
        return {"overlong": self._overlong.counts, "failed": self._failed.counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from what `state_dict` returned."""
        self._overlong.counts, self._failed.counts = list(state["overlong"]), list(state["failed"])


class _Tally:
    """How much went wrong so far, and whether that is too much.

    Args:
        share: Of all so far, and of at least `_FEW`, that may go wrong.
        all_may: Whether the first few may all go wrong.
    """

    def __init__(self, share: float, *, all_may: bool = False) -> None:
        self.share, self._all_may = share, all_may
        self.counts = [0, 0]  # went wrong, of so many

    def too_many(self, wrong: int, of: int) -> bool:
        """Count some more, and tell whether it is now too much."""
        self.counts = [self.counts[0] + wrong, self.counts[1] + of]
        all_wrong, tried = self.counts
        none_right = all_wrong == tried and tried >= _NONE_OF and not self._all_may
        return wrong > 0 and (none_right or all_wrong > self.share * max(tried, _FEW))

    def __str__(self) -> str:
        return "{} of {}".format(*self.counts)


def most_frequent(failed: Sequence[Trajectory], count: int = 3) -> list[tuple[int, str]]:
    """Return the most frequent reasons for which there is no score: how often, and an example.

    Those that differ in a number are one.
    """
    reasons: dict[str, list[str]] = {}
    for trajectory in failed:
        said = trajectory.score_error or "nobody says why"
        reasons.setdefault(re.sub(r"\d+", "#", said.splitlines()[0]), []).append(said)
    often = sorted(reasons.values(), key=len, reverse=True)[:count]
    return [(len(those), those[0]) for those in often]

"""The same tasks before and after: how much more is solved, and whether that may be chance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PairedDifference:
    """What became of tasks that were tried twice.

    Attributes:
        gained: Tasks that failed before and succeed after.
        lost: The reverse.
        tasks: All of them.
    """

    gained: int
    lost: int
    tasks: int

    @classmethod
    def of(cls, before: Sequence[bool], after: Sequence[bool]) -> "PairedDifference":
        """Count what changed, task by task."""
        pairs = list(zip(before, after, strict=True))
        return cls(pairs.count((False, True)), pairs.count((True, False)), len(pairs))

    @property
    def difference(self) -> float:
        """Share of successes after, minus that before."""
        return (self.gained - self.lost) / self.tasks

    def interval(self, z: float = 1.959964) -> tuple[float, float]:
        """Return Wald's interval with half a task added to each cell (Agresti and Min 2005); 95 % for the default `z`.

        Examples:
            >>> [round(end, 3) for end in PairedDifference(gained=40, lost=10, tasks=100).interval()]
            [0.169, 0.419]
        """
        gained, lost, tasks = self.gained + 0.5, self.lost + 0.5, self.tasks + 2
        centre = (gained - lost) / tasks
        half = z * math.sqrt(gained + lost - (gained - lost) ** 2 / tasks) / tasks
        return max(-1.0, centre - half), min(1.0, centre + half)

    @property
    def p_value(self) -> float:
        """Of McNemar's exact test: a task that changed was as likely to be gained as lost; two-sided.

        Examples:
            >>> round(PairedDifference(gained=15, lost=5, tasks=100).p_value, 5)
            0.04139
        """
        changed, fewer = self.gained + self.lost, min(self.gained, self.lost)
        ways = sum(math.comb(changed, k) for k in range(fewer + 1))  # of at most so many heads in `changed` throws
        return min(1.0, 2 * ways / 2**changed)

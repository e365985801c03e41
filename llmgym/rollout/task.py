"""`Task`: what one episode is about."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Task:
    """What one episode is about.

    Attributes:
        seed: The seed of its environment.
        group: Episodes of one group have the same seed and row, and have to see the same first observation. The
            trajectories that an episode gives to several learning seats belong to groups of their own, so that seat is
            compared with seat.
        row: The row of a data set that it is about; its environment is given it as ``options["row"]``. None where the
            environment draws the task from the seed.
        number: By which its replies are seeded, whoever plays it and when. None: its place among those played.
    """

    seed: int
    group: int
    row: int | None = None
    number: int | None = None


def numbered(tasks: Sequence[Task]) -> list[Task]:
    """Return tasks that all have a number: their own, or their place."""
    return [replace(task, number=place) if task.number is None else task for place, task in enumerate(tasks)]


def in_shares(tasks: Sequence[Task], groups: int) -> list[Sequence[Task]]:
    """Return the tasks of `groups` groups at a time; those of a group are adjacent.

    Examples:
        >>> [len(share) for share in in_shares([Task(0, 0), Task(0, 0), Task(1, 1), Task(2, 2)], groups=2)]
        [3, 1]
    """
    starts = [place for place, task in enumerate(tasks) if place == 0 or task.group != tasks[place - 1].group]
    return [tasks[start:stop] for start, stop in itertools.pairwise([*starts[::groups], len(tasks)])]

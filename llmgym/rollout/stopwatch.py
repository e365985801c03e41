"""`Stopwatch`: where the time of a rollout goes."""

import contextlib
import time
from collections.abc import Iterator
from typing import Literal, get_args

Phase = Literal["generation", "environment", "scoring", "waiting"]
"""What a process does while it plays. ``environment``: resets and steps, with an environment's own score, as far as
others are held up by them. ``scoring``: the same of a scorer. ``waiting``: nothing at all, until environments or
scorers that wait for something are done."""

PHASES: tuple[Phase, ...] = get_args(Phase)


class Stopwatch:
    """Adds up seconds by what they went to; no second counts twice.

    Attributes:
        seconds: So far, by phase.
        working: The part of these in which this thread had a processor, and did not sleep.
    """

    def __init__(self) -> None:
        self.seconds: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
        self.working: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)

    @contextlib.contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """Count a block for a phase, apart from what others count meanwhile, as a block that awaits lets them."""
        clocks = (self.seconds, time.perf_counter), (self.working, time.thread_time)
        begun = [(now(), sum(counted.values())) for counted, now in clocks]
        try:
            yield
        finally:
            for (counted, now), (start, before) in zip(clocks, begun, strict=True):
                others = sum(counted.values()) - before
                counted[phase] += max(0.0, now() - start - others)

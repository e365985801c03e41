"""`Limits`: what a run may take, and whether it has."""

import time

from llmgym.config.sections import Budget
from llmgym.errors import ConfigError
from llmgym.learn.needs import GIB, peak_bytes


class Limits:
    """Tells when a run has taken the time or the memory that it may; time counts from here.

    Args:
        budget: Of the run.

    Raises:
        ConfigError: More memory is taken already.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget, self._begun = budget, time.monotonic()
        if self._over_memory():
            raise ConfigError(
                f"max_memory: this process has taken {peak_bytes() / GIB:.2f} GiB before the first step; expected a "
                f"larger bound, got {budget.max_memory:g}."
            )

    def reached(self) -> str | None:
        """Return what is used up, in a sentence without its stop; None if nothing is."""
        seconds = self._budget.seconds
        if seconds is not None and time.monotonic() - self._begun >= seconds:
            return "Its time is up"
        if self._over_memory():
            return f"It has taken {peak_bytes() / GIB:.2f} GiB of memory, and may take {self._budget.max_memory:g}"
        return None

    def _over_memory(self) -> bool:
        return self._budget.max_memory is not None and peak_bytes() > self._budget.max_memory * GIB

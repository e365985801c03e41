"""The time that chat templates are told: one for everything that a run renders, however long it takes."""

from datetime import datetime

_now: datetime | None = None


def set_run_time(time: datetime | None = None) -> datetime:
    """Set the time that templates are told from now on, and return it.

    Args:
        time: None for the present moment.
    """
    global _now
    _now = time or datetime.now().replace(microsecond=0)
    return _now


def run_time() -> datetime:
    """Return the time that templates are told: the one set last, or else the moment when this was first asked."""
    return _now or set_run_time()

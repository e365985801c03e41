"""trackio: a database on this machine, which ``trackio show`` draws."""

from collections.abc import Mapping

from llmgym.errors import import_extra
from llmgym.report.trackers.base import Tracked


class TrackioTracker:
    """Writes to trackio's database, in ``TRACKIO_DIR`` or where trackio keeps it.

    Args:
        run: What is shown.
        earlier: The id of an earlier part of the run, which this one takes the place of.
    """

    first = 0

    def __init__(self, run: Tracked, earlier: str | None) -> None:
        trackio = import_extra("trackio", "trackio")
        for one in trackio.Api().runs(run.project) if earlier is not None else ():
            if one.id == earlier:
                one.delete()
        nothing_else = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        self._run = trackio.init(project=run.project, name=run.name, config=dict(run.config), **nothing_else)
        if earlier is not None:
            self._run.id = earlier
        self.id: str = self._run.id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve; the number of the step has a name of trackio's own."""
        self._run.log({name: value for name, value in values.items() if name != "step"}, step=step)

    def close(self) -> None:
        """Wait until everything is in the database."""
        self._run.finish()


def open_tracker(run: Tracked, earlier: str | None) -> TrackioTracker:
    """Open a tracker, see `Opener`."""
    return TrackioTracker(run, earlier)

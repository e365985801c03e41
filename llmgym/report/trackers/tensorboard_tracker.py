"""TensorBoard: event files in the run directory."""

import json
import shutil
from collections.abc import Mapping

from llmgym.errors import import_extra
from llmgym.report.trackers.base import Tracked


class TensorBoardTracker:
    """Writes event files; ``tensorboard --logdir runs`` finds those of all runs.

    Args:
        run: What is shown.
    """

    first = 0

    def __init__(self, run: Tracked) -> None:
        folder = run.place / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        self.id = run.name
        self._writer = import_extra("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(folder))
        text = json.dumps(run.config, indent=2, default=str)
        self._writer.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()), 0)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve, on the disk at once."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def open_tracker(run: Tracked, earlier: str | None) -> TensorBoardTracker:
    """Open a tracker, see `Opener`."""
    return TensorBoardTracker(run)

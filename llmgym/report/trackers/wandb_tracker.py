"""Weights & Biases: files in the run directory that `wandb sync` sends, or its service if ``WANDB_MODE`` says so."""

import os
import shutil
import uuid
from collections.abc import Mapping

from llmgym.errors import import_extra
from llmgym.report.trackers.base import Tracked


class WandbTracker:
    """Writes a run of W&B. What it notes of the command line and the machine, where secrets may be, is left out.

    Args:
        run: What is shown.
        earlier: The id of an earlier part of the run, which this one goes on with.
    """

    def __init__(self, run: Tracked, earlier: str | None) -> None:
        wandb = import_extra("wandb", "wandb")
        mode = os.environ.get("WANDB_MODE", "offline")
        self.id = earlier or uuid.uuid4().hex[:8]
        run.place.mkdir(parents=True, exist_ok=True)
        for left in (run.place / "wandb").glob(f"offline-run-*-{self.id}"):
            shutil.rmtree(left)
        quiet = wandb.Settings(console="off", silent=True, x_disable_meta=True, disable_git=True, disable_code=True)
        self._run = wandb.init(
            project=run.project,
            name=run.name,
            id=self.id,
            dir=str(run.place),
            config=dict(run.config),
            mode=mode,
            resume="allow" if earlier is not None and mode == "online" else None,
            settings=quiet,
        )
        self.first = int(self._run.step) if mode == "online" else 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Wait until everything is written, or sent."""
        self._run.finish()


def open_tracker(run: Tracked, earlier: str | None) -> WandbTracker:
    """Open a tracker, see `Opener`."""
    return WandbTracker(run, earlier)

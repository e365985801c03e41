"""MLflow: a database beside the run directories, or the server that ``MLFLOW_TRACKING_URI`` names."""

import contextlib
import logging
import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmgym.errors import import_extra
from llmgym.report.trackers.base import Tracked

_REFUSED = re.compile(r"[^\w\-. :/]")  # characters that names of metrics may not have
_LONGEST = 6000  # characters of a parameter


class MLflowTracker:
    """Writes a run of MLflow to ``mlflow.db`` in the directory that has the run directories.

    Args:
        run: What is shown.
        earlier: The id of an earlier part of the run, which this one goes on with.
    """

    def __init__(self, run: Tracked, earlier: str | None) -> None:
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table that it makes
        entities, tracking = import_extra("mlflow.entities", "mlflow"), import_extra("mlflow.tracking", "mlflow")
        self._metric, file = entities.Metric, run.directory.parent.absolute() / "mlflow.db"
        elsewhere = os.environ.get("MLFLOW_TRACKING_URI")
        if not elsewhere and not file.exists():
            _make_database(file, tracking.MlflowClient)
        self._client = tracking.MlflowClient(tracking_uri=elsewhere or f"sqlite:///{file}")
        self.first = 0
        if earlier is not None:
            self.id = earlier
            self._client.update_run(self.id, status="RUNNING")
            if elsewhere:
                self.first = self._last_step() + 1
            else:
                _forget_metrics(file, self.id)
            return
        known = self._client.get_experiment_by_name(run.project)
        experiment = self._client.create_experiment(run.project) if known is None else known.experiment_id
        self.id = self._client.create_run(experiment, run_name=run.name).info.run_id
        options = [entities.Param(key, str(value)[:_LONGEST]) for key, value in run.config.items()]
        self._client.log_batch(self.id, params=options)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve; a character that MLflow does not take in a name becomes ``_``."""
        now = int(time.time() * 1000)
        points = [self._metric(_REFUSED.sub("_", name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self.id, metrics=points)

    def close(self) -> None:
        """Say that the run has ended."""
        self._client.set_terminated(self.id)

    def _last_step(self) -> int:
        """Return the last step that a server was told of."""
        names = self._client.get_run(self.id).data.metrics
        return max((one.step for name in names for one in self._client.get_metric_history(self.id, name)), default=-1)


def _make_database(file: Path, client: Callable[..., Any]) -> None:
    """Make a database with its tables, whole or not at all: MLflow takes seconds and cannot go on with half of them."""
    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=file.parent) as directory:
        made = Path(directory) / file.name
        client(tracking_uri=f"sqlite:///{made}")
        if not file.exists():  # else another run was faster
            made.rename(file)


def _forget_metrics(file: Path, run: str) -> None:
    """Take the points of a run out of a database; MLflow has no call for it."""
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        for table in ("metrics", "latest_metrics"):
            database.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (run,))  # one of these two


def open_tracker(run: Tracked, earlier: str | None) -> MLflowTracker:
    """Open a tracker, see `Opener`."""
    return MLflowTracker(run, earlier)

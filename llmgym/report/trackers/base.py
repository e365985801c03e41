"""`Tracker`: what a library that shows metrics is asked for, and which libraries there are."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llmgym.config.choices import TrackerKind
from llmgym.errors import import_extra


@dataclass(frozen=True)
class Tracked:
    """The run that is shown.

    Attributes:
        directory: Of the run; trackers write into ``trackers`` in it.
        project: What the run belongs to.
        name: Of the run.
        config: Its options, without secrets.
    """

    directory: Path
    project: str
    name: str
    config: Mapping[str, Any]

    @property
    def place(self) -> Path:
        """Where trackers write."""
        return self.directory / "trackers"


class Tracker(Protocol):
    """Shows the metrics of one run.

    Attributes:
        id: What it calls the run.
        first: The first step that it wants to be told of: one that runs elsewhere keeps what it has.
    """

    id: str
    first: int

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take metrics after a training step. Steps never fall; the same one may come again with other metrics."""
        ...

    def close(self) -> None:
        """Write what is not yet written."""
        ...


Opener = Callable[[Tracked, str | None], Tracker]
"""Opens a tracker for a run, given the id that it gave an earlier part of it, if there was one. What an earlier part
left on this machine is taken away: the tracker will be told of every step again."""

_LIBRARIES: Mapping[TrackerKind, tuple[str, ...]] = {
    "tensorboard": ("tensorboard",),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
}


def opener(kind: TrackerKind) -> Opener:
    """Return what opens trackers of a kind.

    Raises:
        ConfigError: Its library is not installed.
    """
    for library in _LIBRARIES[kind]:
        import_extra(library, kind)
    found: Opener = importlib.import_module(f"llmgym.report.trackers.{kind}_tracker").open_tracker
    return found

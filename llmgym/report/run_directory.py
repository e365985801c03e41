"""`RunDirectory`: everything a training run writes, in one new directory."""

import importlib.metadata
import json
import math
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmgym.data.trajectories import write_trajectories
from llmgym.errors import RunDirectoryError
from llmgym.files import whole_or_absent
from llmgym.rollout.trajectory import Trajectory
from llmgym.version import __version__

_PACKAGES = (
    "gymnasium",
    "torch",
    "torchrl",
    "tensordict",
    "transformers",
    "tokenizers",
    "pyarrow",
    "pydantic",
)


class RunDirectory:
    """A new directory for one run; one that exists is never written to.

    It holds ``config.yaml`` (every option), ``environment.json`` (versions, arguments,
    machine), ``metrics.jsonl`` (a line per step), ``evaluations.json``,
    ``trajectories/step-00001.parquet`` and so on, ``learning_curve.png`` and
    ``checkpoint/``.

    Args:
        parent: Where to make it.
        name: What its name begins with; the time follows.
        config: The resolved configuration, as YAML.
        facts: What else to note in ``environment.json``.

    Raises:
        RunDirectoryError: `parent` cannot be written to.
    """

    def __init__(self, parent: Path, name: str, config: str, facts: Mapping[str, Any]) -> None:
        self.path = self._create(parent, f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
        (self.path / "trajectories").mkdir()
        self._write("config.yaml", config)
        self._write("environment.json", json.dumps({**_environment(), **facts}, indent=2) + "\n")

    @staticmethod
    def _create(parent: Path, name: str) -> Path:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
                path = parent / f"{name}{suffix}"
                try:
                    path.mkdir()
                except FileExistsError:
                    continue
                return path
        except OSError as error:
            reason = error.strerror
        else:
            reason = "a thousand runs began in this second"
        raise RunDirectoryError(
            f"--output-dir {str(parent)!r}: expected a directory that can be written to ({reason})."
        )

    @property
    def checkpoint(self) -> Path:
        """Where the model goes."""
        return self.path / "checkpoint"

    @property
    def learning_curve(self) -> Path:
        """Where the picture goes."""
        return self.path / "learning_curve.png"

    def add_metrics(self, metrics: Mapping[str, float]) -> None:
        """Append a line to ``metrics.jsonl``; a number that is not finite becomes null."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(_known(metrics)) + "\n")

    def add_trajectories(self, step: int, trajectories: Sequence[Trajectory]) -> None:
        """Write a step's trajectories."""
        write_trajectories(self.path / "trajectories" / f"step-{step:05d}.parquet", trajectories)

    def add_evaluations(self, evaluations: Mapping[str, Mapping[str, Any]]) -> None:
        """Write what the evaluations so far came to; a number that is not finite becomes null."""
        known = {label: _known(evaluation) for label, evaluation in evaluations.items()}
        self._write("evaluations.json", json.dumps(known, indent=2) + "\n")

    def _write(self, name: str, text: str) -> None:
        with whole_or_absent(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON knows them: null for a number that is not finite."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def _environment() -> dict[str, Any]:
    return {
        "arguments": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "versions": {"llmgym": __version__, **{name: _version(name) for name in _PACKAGES}},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

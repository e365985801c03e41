"""`RunDirectory`: everything a training run writes, in one directory."""

import contextlib
import fcntl
import importlib.metadata
import json
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmgym.data.trajectories import write_trajectories
from llmgym.errors import RunDirectoryError
from llmgym.files import whole_or_absent
from llmgym.report.console import notify
from llmgym.report.thinning import bytes_in, step_of, thin
from llmgym.rollout.trajectory import Trajectory
from llmgym.secrets import without_secrets_in
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
    """The directory of one run, which one process at a time writes to.

    It holds ``config.yaml`` (every option), ``environment.json`` (versions, arguments,
    machine), ``metrics.jsonl`` (a line per step), ``evaluations.json``,
    ``trajectories/step-00001.parquet`` and so on, ``learning_curve.png``, ``checkpoint/``, and
    ``checkpoints/`` while it runs.

    Args:
        path: A directory that exists.

    Raises:
        RunDirectoryError: Another process writes to it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.most_bytes = math.inf
        """What everything in it but checkpoints may take; episodes are thinned out to keep to it."""
        self._every = 1  # steps between two whose episodes are kept
        self._lock = self._locked()

    @classmethod
    def new(cls, parent: Path, name: str) -> "RunDirectory":
        """Make a directory for a new run.

        Args:
            parent: Where.
            name: What its name begins with; the time follows.

        Raises:
            RunDirectoryError: `parent` cannot be written to.
        """
        directory = cls(cls._create(parent, f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"))
        (directory.path / "trajectories").mkdir()
        return directory

    def describe(self, config: str, facts: Mapping[str, Any]) -> None:
        """Write the resolved configuration, as YAML, and what else to note in ``environment.json``."""
        self._write("config.yaml", config)
        self._write("environment.json", json.dumps({**_environment(), **facts}, indent=2) + "\n")

    def go_back(self, metrics: Sequence[Mapping[str, float]]) -> None:
        """Let the run have these steps and no others; move what it has of later ones aside, into ``superseded``."""
        aside = self.path / "superseded" / time.strftime("%Y%m%d-%H%M%S")
        last = metrics[-1]["step"] if metrics else 0
        file = self.path / "metrics.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
        (self.path / "trajectories").mkdir(exist_ok=True)  # somebody may have made room
        later = [one for one in (self.path / "trajectories").iterdir() if step_of(one) > last]
        batches = self.path / "skipped_batches"
        if len(lines) > len(metrics) and batches.exists():
            later.append(batches)
        for one in later:
            aside.mkdir(parents=True, exist_ok=True)
            one.replace(aside / one.name)
        if lines[len(metrics) :]:
            aside.mkdir(parents=True, exist_ok=True)
            (aside / file.name).write_text("".join(lines[len(metrics) :]), encoding="utf-8")
        self._write(file.name, "".join(map(_line, metrics)))
        for partial in (self.path / "trajectories").glob(".*.partial"):
            partial.unlink()

    def close(self, *, discard: bool = False) -> None:
        """Let other processes write to it.

        Args:
            discard: Delete it, for a run that came to nothing; but not batches whose loss was not finite.
        """
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if discard and not (self.path / "skipped_batches").exists():
            shutil.rmtree(self.path, ignore_errors=True)

    def _locked(self) -> int | None:
        """Lock the directory until `close`, or the end of this process; return what holds the lock."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise RunDirectoryError(f"Another process is writing to the run directory {str(self.path)!r}.") from None
        except OSError:  # a file system that knows no locks
            pass
        return descriptor

    @staticmethod
    def _create(parent: Path, name: str) -> Path:
        parent = parent.absolute()
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
    def learning_curve(self) -> Path:
        """Where the picture goes."""
        return self.path / "learning_curve.png"

    def add_metrics(self, metrics: Mapping[str, float]) -> None:
        """Append a line to ``metrics.jsonl``; a number that is not finite becomes null."""
        with self._writing(), (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(_line(metrics))
            file.flush()
            os.fsync(file.fileno())

    def add_trajectories(self, step: int, trajectories: Sequence[Trajectory]) -> None:
        """Write a step's trajectories, and delete others if they take too much.

        Raises:
            RunDirectoryError: They cannot be written, or all else takes too much already.
        """
        with self._writing():
            write_trajectories(self.path / "trajectories" / f"step-{step:05d}.parquet", trajectories)
            if self.most_bytes < math.inf:
                self._thin()

    def _thin(self) -> None:
        """Delete episodes until everything but checkpoints takes no more than it may."""
        shards, checkpoints = self.path / "trajectories", (self.path / "checkpoint", self.path / "checkpoints")
        rest = bytes_in(self.path) - sum(map(bytes_in, (shards, *checkpoints)))
        every = thin(shards, self.most_bytes - rest)
        if rest > self.most_bytes:
            raise RunDirectoryError(
                f"{str(self.path)!r} has no room left within max_disk: besides checkpoints and episodes, files take "
                f"{rest / 1e9:.2f} GB. Delete some, such as those in superseded, or allow more."
            )
        if every != self._every:
            self._every = every
            kept = f"those of one step in {every}, and of the newest," if every else "at most those of the newest"
            notify(f"Episodes do not fit into max_disk: {kept} are kept so far.", warning=False)

    def add_evaluations(self, evaluations: Mapping[str, Mapping[str, Any]]) -> None:
        """Write what the evaluations so far came to; a number that is not finite becomes null."""
        known = {label: _known(evaluation) for label, evaluation in evaluations.items()}
        self._write("evaluations.json", json.dumps(known, indent=2) + "\n")

    def _write(self, name: str, text: str) -> None:
        with self._writing(), whole_or_absent(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Say where something could not be written."""
        try:
            yield
        except OSError as error:
            raise RunDirectoryError(f"{str(self.path)!r} cannot be written to: {error}.") from error


def _line(metrics: Mapping[str, float]) -> str:
    return json.dumps(_known(metrics)) + "\n"


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON knows them: null for a number that is not finite."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def _environment() -> dict[str, Any]:
    return {
        "arguments": without_secrets_in(sys.argv),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "versions": versions(),
    }


def versions() -> dict[str, str | None]:
    """Return the versions of llmgym and of the packages that its numbers depend on."""
    return {"llmgym": __version__, **{name: _version(name) for name in _PACKAGES}}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

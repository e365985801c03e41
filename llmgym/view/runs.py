"""`Run`: a run directory as it is now; `Follower`: reads on while runs go on."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmgym.config.plain import read_yaml
from llmgym.data.strict_json import json_object
from llmgym.errors import ConfigError, DataError, said_by
from llmgym.files import require_file
from llmgym.statistics import share_of_tasks
from llmgym.view.index import Index, stamp_of
from llmgym.view.metrics import MetricsFile, number
from llmgym.view.parts import part_meanings
from llmgym.visible import visible

_LARGEST = 2**24  # bytes of a file that describes a run
_PAUSE = 1.0  # seconds between two looks at a directory


class Run:
    """What a run directory holds, or that of an evaluation.

    Args:
        path: The directory.
        label: What the run is called on pages and in links.

    Attributes:
        index: Of its episodes.
        metrics: Of its steps.
        changes: How often something new was found.
        trouble: Why it could not be read on; None if it could.
        parts: What the parts of its scores are, if its environment is a built-in one that says so.

    Raises:
        DataError: The directory is none of a run.
    """

    def __init__(self, path: Path, label: str) -> None:
        known = ("metrics.jsonl", "config.yaml", "settings.json", "trajectories")
        if not any((path / name).exists() for name in known):
            raise DataError(
                f"{str(path)!r}: expected the directory of a run, or of an evaluation; {_found_instead(path, known)}."
            )
        self.path, self.label = path, label
        self.index, self.metrics = Index(path), MetricsFile(path / "metrics.jsonl")
        self.changes = 0
        self.trouble: str | None = None
        self._files: dict[str, tuple[object, dict[str, Any], str | None]] = {}
        self.parts = part_meanings(str(self.config.get("env", "")))  # now, so that no page waits for it

    def refresh(self) -> None:
        """Read what is new."""
        before = len(self.metrics.steps), self.metrics.edition, stamp_of(self.path / "evaluations.json")
        self.metrics.refresh()
        if before != (len(self.metrics.steps), self.metrics.edition, stamp_of(self.path / "evaluations.json")):
            self._changed()
        self.index.refresh(self._changed)

    def _changed(self) -> None:
        self.changes += 1

    @property
    def config(self) -> dict[str, Any]:
        """The options of the run; empty if they cannot be read."""
        return self._held("config.yaml", read_yaml)[0] or self._held("settings.json", json_object)[0]

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, arguments and machine; empty if they cannot be read."""
        return self._held("environment.json", json_object)[0]

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """Its held-out evaluations that have a step, as far as they can be read."""
        names = ("step", "success", "success_low", "success_high", "reward", "episodes")
        found = []
        for label, one in self._held("evaluations.json", json_object)[0].items():
            values = one if isinstance(one, dict) else {}
            numbers = {name: number(values[name]) for name in names if isinstance(values.get(name), int | float)}
            if "step" in numbers and "success" in numbers:
                found.append({"label": visible(label), **numbers, "measure": visible(str(values.get("measure", "")))})
        return found or self._played_held_out()

    def _played_held_out(self) -> list[dict[str, Any]]:
        """What the episodes of an evaluation came to; nothing for a training run, or where no success is declared."""
        episodes = self.index.episodes
        judged = np.flatnonzero(~np.isnan(episodes.success) & (episodes.step == 0))
        if not len(judged):
            return []
        keys = np.stack([episodes.seed[judged], episodes.data_row[judged]])
        _, tasks = np.unique(keys, axis=1, return_inverse=True)
        samples = [episodes.success[judged[tasks == task]] == 1 for task in range(tasks.max() + 1)]
        names = ("success", "success_low", "success_high")
        numbers = dict(zip(names, share_of_tasks(map(list, samples)), strict=True))
        return [{"label": "", "step": 0, **numbers, "episodes": len(judged), "measure": "success"}]

    @property
    def faults(self) -> list[str]:
        """What cannot be read, in sentences."""
        files = [self._held(name, read)[1] for name, read in _FILES.items()]
        return [*filter(None, [self.trouble, *files]), *self.metrics.faults, *self.index.faults.values()]

    def _held(self, name: str, read: Callable[[Path], dict[str, Any]]) -> tuple[dict[str, Any], str | None]:
        """Return what a file holds, read again when it has changed, and what is wrong with it."""
        path = self.path / name
        stamp = stamp_of(path)
        if stamp is None:
            return {}, None
        if name not in self._files or self._files[name][0] != stamp:
            values: dict[str, Any] = {}
            fault = None
            try:
                if stamp[2] > _LARGEST:
                    raise DataError(f"{str(path)!r}: expected at most {_LARGEST:,} bytes, got {stamp[2]:,}.")
                require_file(path)
                values = read(path)
            except (DataError, ConfigError) as error:
                fault = str(error)
            except OSError as error:
                fault = visible(f"{str(path)!r}: {error}.")
            self._files[name] = stamp, values, fault
        return self._files[name][1:]


_FILES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "config.yaml": read_yaml,
    "environment.json": json_object,
    "evaluations.json": json_object,
}


def _found_instead(path: Path, known: Sequence[str]) -> str:
    """Return what is there in place of a run's directory, with what may have been meant."""
    if path.is_dir():
        inside = sorted({str(one.parent) for name in known for one in path.glob(f"*/{name}")})
        runs = f"; there are {', '.join(map(repr, inside[:5]))} in it" if inside else ""
        return f"it has none of {', '.join(known)}{runs}"
    whole = path.with_name(path.name.rpartition("@")[0] or path.name)
    return "there is no such directory" + (f"; the pages of {str(whole)!r} show every step" if whole.is_dir() else "")


def open_runs(paths: Sequence[Path]) -> list[Run]:
    """Return runs by the names of their directories, with as much of the path as tells them apart.

    Raises:
        DataError: One is no run directory, or is named twice.
    """
    whole = [path.expanduser().absolute() for path in paths]
    if len(set(whole)) < len(whole):
        raise DataError("expected different runs, got one twice.")
    depth = 1
    while len({one.parts[-depth:] for one in whole}) < len(whole):
        depth += 1
    return [Run(one, visible("/".join(one.parts[-depth:]))) for one in whole]


class Follower:
    """A thread that reads what is new in runs until it is told to stop.

    Args:
        runs: Which.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="llmgym-view", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join(_PAUSE)  # or a little later, if it is reading

    def _follow(self) -> None:
        while not self._stop.is_set():
            for run in self._runs:
                try:
                    run.refresh()
                    run.trouble = None
                except Exception as error:  # noqa: BLE001  # one run that cannot be read must not hide the others
                    run.trouble = f"{run.label}: {said_by(error)}"
            self._stop.wait(_PAUSE)

"""`MetricsFile`: the lines of ``metrics.jsonl``, read on as the file grows."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmgym.data.strict_json import from_json
from llmgym.files import require_file
from llmgym.report.metrics import metric_of

_MOST_FAULTS = 5


class MetricsFile:
    """What was measured in every step of a run.

    Args:
        path: A file that may not exist yet.

    Attributes:
        steps: Numbers by name, for each line that is whole; None for a number that is not finite.
        faults: What is wrong with lines that hold something else.
        edition: Changes when the file is another one, and not one that has grown.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset, self._line = 0, 0
        self._inode = -1
        self.steps: list[dict[str, float | None]] = []
        self.faults: list[str] = []
        self.edition = 0

    def refresh(self) -> None:
        """Read the lines that are new; a line that is not ended yet is left for later."""
        try:
            require_file(self._path)
            with self._path.open("rb") as file:
                stat = self._path.stat()
                if stat.st_ino != self._inode or stat.st_size < self._offset:
                    self._offset, self._line, self._inode = 0, 0, stat.st_ino
                    self.steps, self.faults, self.edition = [], [], self.edition + 1
                if stat.st_size == self._offset:
                    return
                file.seek(self._offset)
                whole, _, _ = file.read().rpartition(b"\n")
        except OSError:
            return
        if whole:
            self._offset += len(whole) + 1
            for line in whole.split(b"\n"):
                self._line += 1
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            values = from_json(line.decode())
        except ValueError:
            values = None
        step = values.get("step") if isinstance(values, dict) else None
        if not isinstance(step, int) or number(step) is None:
            if len(self.faults) < _MOST_FAULTS:
                fault = f"{self._path.name}, line {self._line}: expected a JSON object with a step, got {line[:60]!r}."
                self.faults.append(fault)
            return
        self.steps.append({name: number(value) for name, value in values.items() if _is_number(value)})


def meaning_of(name: str, parts: Mapping[str, str]) -> str:
    """Return what a metric is and its unit, or nothing if an algorithm of one's own measures it.

    Args:
        name: As in ``metrics.jsonl``.
        parts: What the parts of scores are, by name.

    Examples:
        >>> meaning_of("turns", {}), meaning_of("seconds", {}), meaning_of("mine", {})
        ('Mean of the replies in an episode', 'Time of the step, without evaluations and checkpoints (s)', '')
        >>> meaning_of("part/form", {"form": "form: there is one answer."})
        'Mean of a part of the score. form: there is one answer.'
    """
    metric, part = metric_of(name), name.removeprefix("part/")
    if part != name and part in parts:
        return f"Mean of a part of the score. {parts[part]}"
    if metric is None:
        return ""
    return f"{metric.meaning} ({metric.unit})" if metric.unit else metric.meaning


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def number(value: Any) -> float | None:
    """Return a number as JSON has it; None for one that is missing or not finite.

    Examples:
        >>> number(0.5), number(float("nan")), number(10**400)
        (0.5, None, None)
    """
    try:
        if value is None or not math.isfinite(value):
            return None
    except OverflowError:  # a whole number that no float holds
        return None
    return value if isinstance(value, int) else float(value)


def mean(values: NDArray[np.float64]) -> float | None:
    """Return the mean of the values that are there; None if none is.

    Examples:
        >>> mean(np.array([0.25, np.nan, 0.75])), mean(np.array([np.nan]))
        (0.5, None)
    """
    there = values[~np.isnan(values)]
    return number(there.mean()) if len(there) else None

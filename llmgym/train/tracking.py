"""`Tracking`: a sink that tells trackers of steps and evaluations, each in a thread of its own."""

import json
import math
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from llmgym.config.choices import MetricNames, TrackerKind
from llmgym.config.sections import LearningConfig
from llmgym.data.strict_json import json_object
from llmgym.errors import said_by
from llmgym.evaluate import Evaluation
from llmgym.files import whole_or_absent
from llmgym.learn import ranks
from llmgym.report.console import notify
from llmgym.report.metric_names import renamed
from llmgym.report.trackers.base import Opener, Tracked, Tracker, opener
from llmgym.rollout.trajectory import Trajectory

PATIENCE = 30.0
"""Seconds that all trackers together may take to write what they were told, once a run has ended."""

Told = tuple[int, Mapping[str, float]]


class Tracking:
    """Tells trackers what is measured. None of them can delay a run, or end it.

    A run that goes on tells its trackers all steps again that it has, in their order, and gives them the ids that they
    had: so their curves have every step of the run once, and none that was superseded.

    Args:
        openers: What opens each tracker.
        run: What is shown.
        names: Whose names metrics have.
        environment: What is trained on, where names have it.
    """

    def __init__(
        self, openers: Mapping[TrackerKind, Opener], run: Tracked, names: MetricNames = "llmgym", environment: str = ""
    ) -> None:
        self._names, self._environment = names, environment
        self._evaluated = set[str]()  # labels of evaluations that were told
        ids = _Ids(run.place / "ids.json")
        self._telling = [_Telling(kind, opened, run, ids) for kind, opened in openers.items()]

    def catch_up(self, metrics: Sequence[Mapping[str, float]], evaluations: Mapping[str, Evaluation]) -> None:
        """Tell all that a run measured before it goes on."""
        told = [(int(row["step"]), row) for row in metrics]
        told += [(one.step or 0, _metrics(one)) for one in evaluations.values()]
        self._evaluated |= evaluations.keys()
        for step, values in sorted(told, key=lambda one: one[0]):
            self._tell(step, values)

    def note_step(self, number: int, trajectories: Sequence[Trajectory], metrics: Mapping[str, float]) -> None:
        """Tell what a step measured."""
        self._tell(int(metrics["step"]), metrics)

    def note_evaluation(self, label: str, evaluation: Evaluation) -> None:
        """Tell what an evaluation came to, unless that is known."""
        if label not in self._evaluated:
            self._evaluated.add(label)
            self._tell(evaluation.step or 0, _metrics(evaluation))

    def close(self, metrics: Sequence[Mapping[str, float]], evaluations: Mapping[str, Evaluation]) -> None:
        """Wait a while until trackers have written everything."""
        begun = [one for one in self._telling if one.ident is not None]
        for one in begun:
            one.told.put(None)
        until = time.monotonic() + PATIENCE
        for one in begun:
            one.join(max(0.0, until - time.monotonic()))
            if one.is_alive():
                notify(f"The tracker {one.kind} has not written everything after {PATIENCE:g} s and is left to itself.")

    def _tell(self, step: int, values: Mapping[str, float]) -> None:
        known = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        shown = renamed(known, self._names, self._environment)
        if ranks.count() > 1:
            shown.pop("perf/throughput", None)  # per device, and there are others
        for one in self._telling:
            one.tell(step, shown)


class _Telling(threading.Thread):
    """Opens a tracker, and tells it what is in a queue; the interpreter does not wait for it when it ends."""

    def __init__(self, kind: TrackerKind, opened: Opener, run: Tracked, ids: "_Ids") -> None:
        super().__init__(name=f"llmgym-{kind}", daemon=True)
        self.kind, self.told = kind, queue.SimpleQueue[Told | None]()
        self._open, self._run, self._ids = opened, run, ids

    def tell(self, step: int, values: Mapping[str, float]) -> None:
        """Have the tracker told something; it is opened when there is something to tell, and given up once it fails."""
        if self.ident is None:
            self.start()
        if self.is_alive():
            self.told.put((step, values))

    def run(self) -> None:
        """Tell the tracker everything; the first time that it fails is the last."""
        try:
            tracker: Tracker = self._open(self._run, self._ids.of(self.kind))
            self._ids.note(self.kind, tracker.id)
            while (one := self.told.get()) is not None:
                step, values = one
                if step >= tracker.first:
                    tracker.log(step, values)
            tracker.close()
        except BaseException as error:  # noqa: BLE001  # whatever a library raises, the run goes on
            notify(f"The tracker {self.kind} failed and is told nothing more: {said_by(error)}")


class _Ids:
    """What trackers call a run, in a file.

    Args:
        file: Where; it need not exist.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._lock = file, threading.Lock()

    def of(self, kind: TrackerKind) -> str | None:
        """Return the id that a tracker gave; None if it gave none."""
        with self._lock:
            return self._read().get(kind)

    def note(self, kind: TrackerKind, given: str) -> None:
        """Keep the id that a tracker gave."""
        with self._lock:
            ids = {**self._read(), kind: given}
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with whole_or_absent(self._file) as temporary:
                temporary.write_text(json.dumps(ids, indent=2) + "\n", encoding="utf-8")

    def _read(self) -> dict[str, str]:
        return json_object(self._file) if self._file.exists() else {}


def tracking(config: LearningConfig, directory: Path, env_id: str | None) -> list[Tracking]:
    """Return the sink of the trackers that a configuration asks for, if it asks for any.

    Raises:
        ConfigError: The library of one is not installed.
    """
    asked = config.tracking
    if not asked.kinds:
        return []
    openers = {kind: opener(kind) for kind in asked.kinds}
    name = asked.name or directory.name
    run = Tracked(directory, asked.project or "llmgym", name, config.plain())
    return [Tracking(openers, run, asked.metric_names, str(env_id).rpartition("/")[2])]


def _metrics(evaluation: Evaluation) -> dict[str, float]:
    """Return what trackers are told of an evaluation."""
    parts = {f"eval/part/{name}": value for name, value in evaluation.parts.items() if name != evaluation.measure}
    found = {f"eval/{evaluation.measure}": evaluation.success, "eval/reward": evaluation.reward}
    return {**found, **parts, "eval/missing": evaluation.missing}

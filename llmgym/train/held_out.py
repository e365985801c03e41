"""`HeldOut`: when a run is evaluated, and after which step it was best."""

import math
from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any, Protocol

from llmgym.errors import ConfigError
from llmgym.evaluate import Evaluation
from llmgym.report.console import say
from llmgym.train.journal import AFTER, BEFORE, Journal


class Judge(Protocol):
    """Evaluates the current model on what is held out."""

    size: int

    def evaluate(self) -> Evaluation:
        """Play the held-out episodes, or compare the held-out pairs."""
        ...


class HeldOut:
    """Evaluates a run before, during and after training, always on the same tasks.

    Args:
        judge: Who evaluates.
        every: Training steps between two evaluations; 0 for none during training.
        metric: By which the best step is chosen: the name of a success, ``reward``, or a part of the score; None for no
            choice.

    Raises:
        ConfigError: There are to be evaluations during training, and nothing is held out.
    """

    def __init__(self, judge: Judge, every: int, metric: str | None) -> None:
        if every and not judge.size:
            raise ConfigError("eval_every: nothing is held out; expected eval_episodes above 0, or eval_every 0.")
        self._judge, self._every, self.metric = judge, every, metric
        self._metric_is_known = metric is None

    def evaluate(self, journal: Journal, step: int, last: int) -> None:
        """Evaluate after a step of a run of which `last` is the last, if it is time and nobody has done so."""
        label = self._label(journal, step, last)
        if label is None or label in journal.evaluations or not self._judge.size:
            return
        say(f"Evaluation {label}: {self._judge.size} held-out tasks.")
        found = replace(self._judge.evaluate(), step=step)
        known = _metrics(found)
        if not self._metric_is_known and self.metric not in known:
            raise ConfigError(f"keep_best: expected one of {', '.join(known)}, got {self.metric!r}.")
        self._metric_is_known = True
        journal.note_evaluation(label, found)

    def best(self, journal: Journal, among: Container[int]) -> int | None:
        """Return the step after which the metric was highest, the first of several; None if no metric is asked for.

        Args:
            journal: Of the run.
            among: Steps to choose from.
        """
        if self.metric is None:
            return None
        of_step: dict[int, float] = {}
        for label, evaluation in journal.evaluations.items():
            value = _metrics(evaluation).get(self.metric, math.nan)
            if label != BEFORE and evaluation.step in among and evaluation.step is not None and not math.isnan(value):
                of_step[evaluation.step] = value
        return max(of_step, key=of_step.__getitem__, default=None)

    def _label(self, journal: Journal, step: int, last: int) -> str | None:
        """Return what an evaluation after a step is called; None if there is none."""
        if BEFORE not in journal.evaluations:
            return BEFORE
        if step == last:
            return AFTER
        return _on_the_way(step) if self._every and step % self._every == 0 else None


def gone_on(evaluations: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run noted of its evaluations, for one that takes more steps: the last one is now on the way."""
    return {_on_the_way(one["step"]) if label == AFTER else label: one for label, one in evaluations.items()}


def _metrics(evaluation: Evaluation) -> dict[str, float]:
    """Return the metrics of an evaluation that say how good a model is, by name."""
    return {**evaluation.parts, evaluation.measure: evaluation.success, "reward": evaluation.reward}


def _on_the_way(step: int) -> str:
    return f"after step {step}"

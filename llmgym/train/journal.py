"""`Journal`: a list of sinks that are told what happens in a run: its files, the console, and any others."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol, runtime_checkable

from rich.console import Console

from llmgym.evaluate import Evaluation
from llmgym.report.console import Progress, notify, print_evaluations
from llmgym.report.run_directory import RunDirectory
from llmgym.rollout.trajectory import Trajectory

Metrics = Mapping[str, float]


class Sink(Protocol):
    """Receives what happens in a run, as it happens."""

    def note_step(self, number: int, trajectories: Sequence[Trajectory], metrics: Metrics) -> None:
        """Record a training step of this run: its number from 1 on, the episodes played for it, what was measured."""
        ...

    def note_evaluation(self, label: str, evaluation: Evaluation) -> None:
        """Record a held-out evaluation."""
        ...

    def close(self, metrics: Sequence[Metrics], evaluations: Mapping[str, Evaluation]) -> None:
        """Record all steps and evaluations of a run that has ended, perhaps early."""
        ...


@runtime_checkable
class CatchesUp(Protocol):
    """A sink that is told what a run measured before it goes on."""

    def catch_up(self, metrics: Sequence[Metrics], evaluations: Mapping[str, Evaluation]) -> None:
        """Take all that was measured so far; evaluations are noted once more after it."""
        ...


BEFORE, AFTER = "before training", "after training"
"""What the first and the last evaluation of a run are called."""


class Journal:
    """Tells every sink what happens, one after another.

    Args:
        sinks: Who is told.

    Attributes:
        metrics: What every step measured.
        evaluations: By their labels.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.metrics: list[Metrics] = []
        self.evaluations: dict[str, Evaluation] = {}
        self._sinks = sinks

    def state_dict(self) -> dict[str, Any]:
        """Return what was noted so far."""
        evaluations = {label: asdict(one) for label, one in self.evaluations.items()}
        return {"metrics": list(map(dict, self.metrics)), "evaluations": evaluations}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned; sinks are told of evaluations again, and of steps if they catch up."""
        self.metrics = list(state["metrics"])
        evaluations = {label: Evaluation(**one) for label, one in state["evaluations"].items()}
        for sink in self._sinks:
            if isinstance(sink, CatchesUp):
                sink.catch_up(self.metrics, evaluations)
        for label, evaluation in evaluations.items():
            self.note_evaluation(label, evaluation)

    def note_step(self, trajectories: Sequence[Trajectory], metrics: Metrics) -> None:
        """Tell every sink of a training step."""
        self.metrics.append(metrics)
        self._tell_all(lambda sink: sink.note_step(len(self.metrics), trajectories, metrics))

    def note_evaluation(self, label: str, evaluation: Evaluation) -> None:
        """Tell every sink of a held-out evaluation."""
        self.evaluations[label] = evaluation
        self._tell_all(lambda sink: sink.note_evaluation(label, evaluation))

    def close(self) -> None:
        """Tell every sink that the run has ended."""
        self._tell_all(lambda sink: sink.close(self.metrics, self.evaluations))

    def _tell_all(self, tell: Callable[[Sink], None]) -> None:
        """Tell every sink, whatever the others raise; then raise that."""
        with contextlib.ExitStack() as stack:
            for sink in reversed(self._sinks):
                stack.callback(tell, sink)


class RunFiles:
    """Writes to a run directory: metrics, trajectories, evaluations, and at the end the learning curve.

    Args:
        directory: Where.
        title: Of the curve.
    """

    def __init__(self, directory: RunDirectory, title: str) -> None:
        self._directory, self._title = directory, title
        self._evaluations: dict[str, dict[str, object]] = {}

    def note_step(self, number: int, trajectories: Sequence[Trajectory], metrics: Metrics) -> None:
        """Append a line of metrics, and write the trajectories if there are any."""
        self._directory.add_metrics(metrics)
        if trajectories:
            self._directory.add_trajectories(int(metrics["step"]), trajectories)

    def note_evaluation(self, label: str, evaluation: Evaluation) -> None:
        """Write all evaluations so far."""
        self._evaluations[label] = asdict(evaluation)
        self._directory.add_evaluations(self._evaluations)

    def close(self, metrics: Sequence[Metrics], evaluations: Mapping[str, Evaluation]) -> None:
        """Draw the learning curve of the steps taken."""
        if metrics:
            from llmgym.report.curve import draw_learning_curve  # matplotlib, which a run needs at its end alone

            draw_learning_curve(self._directory.learning_curve, self._title, metrics, evaluations)


class ConsoleReport:
    """Prints at most ten rows of progress, now and then a conversation, and at the end the evaluations.

    Args:
        console: Where.
        steps: Of the run.
        sample_every: Steps between two conversations; 0 for none.
        learns: Whether there is to be anything to learn from.
    """

    def __init__(self, console: Console, steps: int, sample_every: int, *, learns: bool = True) -> None:
        self._console, self._sample_every, self._learns = console, sample_every, learns
        self._progress = Progress(steps, console)
        self._taken = 0  # steps, since this process began

    def note_step(self, number: int, trajectories: Sequence[Trajectory], metrics: Metrics) -> None:
        """Print a row or a conversation if one is due."""
        self._progress.add(number, metrics)
        self._taken += 1
        if trajectories and self._sample_every and number % self._sample_every == 0:
            self._progress.conversation(int(metrics["step"]), trajectories[0])

    def note_evaluation(self, label: str, evaluation: Evaluation) -> None:
        """Print nothing yet: `close` prints all evaluations."""

    def close(self, metrics: Sequence[Metrics], evaluations: Mapping[str, Evaluation]) -> None:
        """Print all evaluations, and whether there was nothing to learn from."""
        if evaluations:
            print_evaluations(self._console, evaluations)
        steps = len(metrics) if self._learns else self._taken
        taken = f"{steps} step{'s' * (steps > 1)}"
        if not self._learns:
            if self._taken:
                notify(f"The episodes of {taken} are stored; --rollouts-from RUN learns from them.", warning=False)
        elif metrics and not any(map(_has_gradient, metrics)):
            notify(
                f"Nothing was learnt: there was no gradient in {taken}. Either no scores of a group differ "
                "(groups_without_signal in metrics.jsonl counts such groups), or the algorithm made no batch of them."
            )


def _has_gradient(metrics: Metrics) -> bool:
    return any(name.startswith("grad_norm") and value != 0 for name, value in metrics.items())

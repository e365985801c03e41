"""A journal tells every sink what happens, in the order in which it happens."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from llmgym.agents import GRPO
from llmgym.evaluate import Evaluation
from llmgym.report.run_directory import RunDirectory
from llmgym.rollout.trajectory import Trajectory
from llmgym.train.journal import ConsoleReport, Journal, RunFiles


class Told:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.what: list[Any] = []

    def note_step(self, number: int, trajectories: Sequence[Trajectory], metrics: Mapping[str, float]) -> None:
        self.what.append((number, len(trajectories), dict(metrics)))

    def note_evaluation(self, label: str, evaluation: Evaluation) -> None:
        self.what.append((label, evaluation.success))

    def close(self, metrics: Sequence[Mapping[str, float]], evaluations: Mapping[str, Evaluation]) -> None:
        self.what.append((len(metrics), list(evaluations)))


def evaluation(success: float) -> Evaluation:
    return Evaluation(10, success, 0.0, 1.0, success, {}, 0)


def test_every_sink_is_told_everything_in_order() -> None:
    sinks = [Told(), Told()]
    journal = Journal(sinks)
    journal.note_evaluation("before training", evaluation(0.25))
    journal.note_step([Trajectory(0, 0)], {"step": 5, "reward": 0.5})
    journal.note_step([], {"step": 6})
    journal.close()
    expected = [("before training", 0.25), (1, 1, {"step": 5, "reward": 0.5}), (2, 0, {"step": 6})]
    assert [sink.what for sink in sinks] == [[*expected, (2, ["before training"])]] * 2


def test_the_files_of_a_run_are_numbered_by_steps_over_all_runs(tmp_path: Path) -> None:
    run = RunDirectory.new(tmp_path, "x")
    journal = Journal([RunFiles(run, "x"), ConsoleReport(Console(quiet=True), 1, 0)])
    journal.note_step([Trajectory(0, 0)], {"step": 5.0, "seconds": 1.0, "entropy": 0.5, "reward": float("nan")})
    journal.note_evaluation("after training", evaluation(0.5))
    journal.close()
    assert [path.name for path in (run.path / "trajectories").iterdir()] == ["step-00005.parquet"]
    assert json.loads((run.path / "metrics.jsonl").read_text())["reward"] is None
    assert json.loads((run.path / "evaluations.json").read_text())["after training"]["success"] == 0.5
    assert run.learning_curve.exists()


def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"prompts_per_step": 2, "group_size": 2, "max_tokens": 8, "eval_episodes": 2}
    agent = GRPO(output_dir=tmp_path, **options)
    experience = agent.trainer.steps.experience

    def interrupted(step: int, last: int) -> Any:
        if step == 3:
            raise KeyboardInterrupt
        return experience(step, last)

    monkeypatch.setattr(agent.trainer.steps, "experience", interrupted)
    with pytest.raises(KeyboardInterrupt):
        agent.train(steps=5)
    (run,) = tmp_path.iterdir()
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert list(json.loads((run / "evaluations.json").read_text())) == ["before training"]
    assert (run / "learning_curve.png").exists()
    assert (run / "checkpoint" / "model.safetensors").exists()


def test_a_sink_that_fails_keeps_nothing_from_the_others(tmp_path: Path) -> None:
    class Failing(Told):
        def note_step(self, *arguments: Any) -> None:
            raise OSError("disk full")

    first, last = Told(), Told()
    journal = Journal([first, Failing(), last])
    with pytest.raises(OSError, match="disk full"):
        journal.note_step([], {"step": 1.0})
    assert first.what == last.what
    assert len(first.what) == 1

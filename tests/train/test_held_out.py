"""When a run is evaluated, and which checkpoint is kept because it was best."""

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llmgym.agents import GRPO, RewardModel
from llmgym.errors import ConfigError
from llmgym.evaluate import Evaluation
from llmgym.report.run_directory import RunDirectory
from llmgym.train.actor import HeldOutEpisodes
from llmgym.train.checkpoints import checkpoints_of
from llmgym.train.held_out import HeldOut
from llmgym.train.journal import Journal
from llmgym.train.online import OnlineSteps
from llmgym.train.trainer import Experience

SMALL: dict[str, Any] = {
    "prompts_per_step": 1,
    "group_size": 2,
    "max_tokens": 8,
    "sample_every": 0,
    "eval_episodes": 3,
    "learning_rate_decay": "none",
    "max_failure_rate": 1.0,
}


def evaluation(success: float, **parts: float) -> Evaluation:
    return Evaluation(4, success, 0.0, 1.0, success / 2, parts, 0)


class Says:
    """A judge whose verdicts are known before."""

    def __init__(self, *values: float, size: int = 4) -> None:
        self.size, self._values = size, iter(values)

    def evaluate(self) -> Evaluation:
        return evaluation(next(self._values))


def judged(values: Sequence[float], metric: str | None = "success", every: int = 1) -> tuple[Journal, HeldOut]:
    journal, held_out = Journal([]), HeldOut(Says(*values), every, metric)
    for step in range(len(values) if every == 1 else every * len(values)):
        held_out.evaluate(journal, step, last=len(values) - 1 if every == 1 else 10**6)
    return journal, held_out


def test_a_run_is_evaluated_before_after_every_so_many_steps_and_after_the_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = GRPO(eval_every=2, output_dir=tmp_path, **SMALL).train(steps=5)
    found = json.loads((run.path / "evaluations.json").read_text())
    assert {label: one["step"] for label, one in found.items()} == {
        "before training": 0,
        "after step 2": 2,
        "after step 4": 4,
        "after training": 5,
    }
    assert run.before is not None
    assert run.after is not None
    assert (run.before.step, run.after.step) == (0, 5)
    assert "after step 4" in capsys.readouterr().out


def test_evaluations_change_nothing_that_is_learnt(tmp_path: Path) -> None:
    runs = [GRPO(eval_every=every, output_dir=tmp_path / str(every), **SMALL).train(steps=3) for every in (0, 1)]
    one, other = [(run.path / "checkpoint" / "model.safetensors").read_bytes() for run in runs]
    assert one == other


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([0.9, 0.1, 0.5, 0.3], 2),  # that before training is of no checkpoint
        ([0.0, 0.5, 0.5, 0.5], 1),
        ([0.0, math.nan, 0.2, math.nan], 2),
        ([0.0, math.nan, math.nan], None),
        ([0.0, 0.1, 0.2], 2),
        ([0.0], None),
    ],
)
def test_the_best_step_is_the_first_with_the_highest_value(values: list[float], best: int | None) -> None:
    journal, held_out = judged(values)
    assert held_out.best(journal, range(99)) == best
    assert judged(values, None)[1].best(journal, range(99)) is None


def test_a_part_that_an_evaluation_lacks_is_not_compared() -> None:
    journal, held_out = Journal([]), HeldOut(Says(), 1, "format")
    for step, parts in enumerate([{"format": 0.1}, {"format": 0.4}, {}]):
        journal.note_evaluation(f"after step {step}", Evaluation(**{**vars(evaluation(1.0, **parts)), "step": step}))
    assert held_out.best(journal, range(99)) == 1


def test_the_best_checkpoint_is_kept_beside_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verdicts = iter([0.9, 0.1, 0.6, 0.2, 0.3, 0.5])
    monkeypatch.setattr(HeldOutEpisodes, "evaluate", lambda self: evaluation(next(verdicts)))
    options = {"eval_every": 1, "keep_best": "success", "save_every": 1, "output_dir": tmp_path}
    run = GRPO(**options, **SMALL).train(steps=5)
    assert sorted(one.step for one in checkpoints_of(run.path)) == [2, 5]
    assert all(one.fault() is None for one in checkpoints_of(run.path))
    said = "".join(capsys.readouterr().out.split())
    assert f"Bestcheckpoint,bysuccess:{run.path}/checkpoints/step-00002" in said


def test_the_best_of_steps_whose_checkpoints_are_gone_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verdicts = iter([0.0, 0.9, 0.1, 0.2, 0.3, 0.2])
    monkeypatch.setattr(HeldOutEpisodes, "evaluate", lambda self: evaluation(next(verdicts)))
    options = {"eval_every": 1, "save_every": 1, "output_dir": tmp_path, "resume": True, **SMALL}
    GRPO(**options).train(steps=2)
    with pytest.raises(ConfigError, match="keep_best: expected one of"):
        GRPO(keep_best="nothing", **options).train(steps=3)
    run = GRPO(keep_best="success", **options).train(steps=4)
    assert sorted(one.step for one in checkpoints_of(run.path)) == [3, 4]
    assert f"{run.path}/checkpoints/step-00003" in "".join(capsys.readouterr().out.split())


def test_a_best_checkpoint_is_written_although_none_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = iter([0.0, 0.7, 0.6, 0.5])
    monkeypatch.setattr(HeldOutEpisodes, "evaluate", lambda self: evaluation(next(verdicts)))
    run = GRPO(eval_every=1, keep_best="reward", save_every=0, output_dir=tmp_path, **SMALL).train(steps=3)
    assert sorted(one.step for one in checkpoints_of(run.path)) == [1, 3]


def test_a_run_that_goes_on_keeps_the_evaluation_after_what_was_its_last_step(tmp_path: Path) -> None:
    first = GRPO(output_dir=tmp_path, resume=True, **SMALL).train(steps=1)
    again = GRPO(output_dir=tmp_path, resume=True, **SMALL).train(steps=2)
    assert again.path == first.path
    found = json.loads((first.path / "evaluations.json").read_text())
    assert list(found) == ["before training", "after step 1", "after training"]
    assert found["after step 1"]["step"] == 1


def test_an_evaluation_that_was_interrupted_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"eval_every": 2, "output_dir": tmp_path, "resume": True, **SMALL}
    whole, calls = HeldOutEpisodes.evaluate, iter(range(9))

    def interrupted(self: HeldOutEpisodes) -> Evaluation:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return whole(self)

    monkeypatch.setattr(HeldOutEpisodes, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        GRPO(**options).train(steps=3)
    run = GRPO(**options).train(steps=3)
    found = json.loads((run.path / "evaluations.json").read_text())
    assert list(found) == ["before training", "after step 2", "after training"]


class Remembers:
    """A scorer with a state of its own, which evaluations change too."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, episode: Any) -> float:
        self.asked += 1
        return random.Random(self.asked).random()

    def state_dict(self) -> dict[str, Any]:
        return {"asked": self.asked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.asked = state["asked"]


def test_what_a_scorer_keeps_of_an_evaluation_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rewards(output: str) -> list[float]:
        options = {**SMALL, "eval_every": 2, "output_dir": tmp_path / output, "resume": True}
        return [row["reward"] for row in GRPO(scorer=Remembers(), **options).train(steps=4).metrics]

    expected = rewards("whole")
    experience, steps = OnlineSteps.experience, iter(range(9))

    def interrupted(self: OnlineSteps, step: int, last: int) -> Experience:
        if next(steps) == 2:
            raise KeyboardInterrupt
        return experience(self, step, last)

    monkeypatch.setattr(OnlineSteps, "experience", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rewards("parts")
    assert rewards("parts") == expected


def test_what_cannot_be_compared_is_refused_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keep_best: compares evaluations during training; expected eval_every"):
        GRPO(keep_best="success", output_dir=tmp_path, **SMALL)
    with pytest.raises(ConfigError, match="eval_every: nothing is held out; expected eval_episodes above 0"):
        GRPO(eval_every=1, output_dir=tmp_path, **{**SMALL, "eval_episodes": 0}).train(steps=1)
    with pytest.raises(ConfigError, match=r"keep_best: expected one of .*success.*, reward, got 'sucess'"):
        GRPO(eval_every=1, keep_best="sucess", output_dir=tmp_path, **SMALL).train(steps=1)
    assert not list(tmp_path.glob("*"))


def test_a_reward_model_is_evaluated_on_its_way_too(tmp_path: Path) -> None:
    options = {"held_out": 4, "examples": 16, "batch_size": 4, "eval_every": 1, "keep_best": "accuracy"}
    run = RewardModel(output_dir=tmp_path, **options).train(steps=3)
    found = json.loads((run.path / "evaluations.json").read_text())
    assert list(found) == ["before training", "after step 1", "after step 2", "after training"]
    assert RunDirectory(run.path).path == run.path

"""What a run goes on from, what it refuses to, and what is left where a checkpoint cannot be written."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import llmgym
from llmgym import Episode, TextEnv
from llmgym.agents import GRPO, SFT
from llmgym.errors import ConfigError, LLMGymError, RunDirectoryError
from llmgym.learn.learner import Learner
from llmgym.learn.needs import GIB, peak_bytes
from llmgym.report.thinning import bytes_in, step_of
from llmgym.train.checkpoints import checkpoints_of, newest_whole
from llmgym.train.interrupts import Interrupted
from llmgym.train.keeper import Keeper
from llmgym.train.state_files import packed_state, read_state

SMALL: dict[str, Any] = {
    "prompts_per_step": 2,
    "group_size": 4,
    "max_tokens": 24,
    "eval_episodes": 0,
    "sample_every": 0,
    "learning_rate_decay": "none",
}


def train(output: Path, steps: int, **options: Any) -> Path:
    path: Path = GRPO(output_dir=output, **{**SMALL, **options}).train(steps=steps).path
    return path


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoint" / "model.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("whole"), 4, save_every=1, keep=9)


@pytest.fixture
def half(whole: Path, tmp_path: Path) -> Path:
    """A run of two steps of four, with a checkpoint of each, as if it had been killed after them."""
    run = tmp_path / "runs" / whole.name
    shutil.copytree(whole, run)
    shutil.rmtree(run / "checkpoint")
    shutil.rmtree(run / "checkpoints" / "step-00003")
    return run


def test_a_run_goes_on_and_ends_as_the_one_that_was_not_interrupted(whole: Path, half: Path) -> None:
    assert train(half.parent, 4, resume=True) == half
    assert all(torch.equal(one, weights(half)[name]) for name, one in weights(whole).items())
    rows = [json.loads(line) for line in (half / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    (aside,) = (half / "superseded").iterdir()
    assert sorted(file.name for file in aside.iterdir()) == [
        "metrics.jsonl",
        "step-00003.parquet",
        "step-00004.parquet",
    ]


def test_a_run_that_has_ended_goes_on_with_more_steps(whole: Path, tmp_path: Path) -> None:
    first = train(tmp_path, 2)
    assert train(tmp_path, 4, resume=True) == first
    assert all(torch.equal(one, weights(first)[name]) for name, one in weights(whole).items())
    assert not (first / "checkpoints").exists()


def test_a_run_without_a_past_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "runs", 1, resume=True)
    assert "has a checkpoint: a new one begins" in " ".join(capsys.readouterr().out.split())


def test_data_is_gone_on_with_where_it_was(tmp_path: Path) -> None:
    options: dict[str, Any] = {"examples": 12, "batch_size": 4, "eval_episodes": 0}
    expected = SFT(output_dir=tmp_path / "whole", **options).train(steps=5)
    SFT(output_dir=tmp_path / "parts", **options).train(steps=2)
    found = SFT(output_dir=tmp_path / "parts", resume=True, **options).train(steps=5)
    assert [row["loss"] for row in found.metrics] == [row["loss"] for row in expected.metrics]
    assert all(torch.equal(one, weights(found.path)[name]) for name, one in weights(expected.path).items())


def test_other_options_are_shown_and_refused_unless_nothing_depends_on_them(half: Path) -> None:
    with pytest.raises(ConfigError, match=r"had other options: seed 1 in place of 0, temperature 0.5 in place of 1.0"):
        train(half.parent, 4, resume=True, seed=1, temperature=0.5)
    assert train(half.parent, 3, resume=True, save_every=2, keep=3, sample_every=7) == half


def test_options_of_the_machine_may_change_and_are_told(half: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(half.parent, 3, resume=True, micro_batch_tokens=512) == half
    said = " ".join(capsys.readouterr().out.split())
    assert "micro_batch_tokens 512 in place of None: its numbers are no longer the same to the bit" in said


def spoil_weights(checkpoint: Path) -> str:
    file = checkpoint / "state" / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    return "state/state.safetensors is not what was written"


def tear(checkpoint: Path) -> str:
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    return "model.safetensors is not what was written"


def lose(checkpoint: Path) -> str:
    (checkpoint / "state" / "state.json").unlink()
    return "state/state.json cannot be read"


def age(checkpoint: Path) -> str:
    mark = json.loads((checkpoint / "complete.json").read_text())
    (checkpoint / "complete.json").write_text(json.dumps({**mark, "schema": 0}))
    return "its state is of version 0, and this llmgym reads version 1"


def name_a_device(checkpoint: Path) -> str:
    mark = json.loads((checkpoint / "complete.json").read_text())
    files = {"/dev/zero": "", **mark["files"]}
    (checkpoint / "complete.json").write_text(json.dumps({**mark, "files": files}))
    return "/dev/zero cannot be read (expected a file, got a pipe, socket or device)"


@pytest.mark.parametrize("spoil", [spoil_weights, tear, lose, age, name_a_device])
def test_a_spoilt_checkpoint_is_named_and_the_one_before_it_taken(
    half: Path, spoil: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = spoil(half / "checkpoints" / "step-00002")
    found = newest_whole(half)
    assert found is not None
    assert found.step == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "step-00002" in said
    assert reason in said


@pytest.mark.parametrize("spoil", [spoil_weights, tear, lose, age])
def test_a_run_goes_on_from_before_a_spoilt_checkpoint_and_past_its_step(whole: Path, half: Path, spoil: Any) -> None:
    spoil(half / "checkpoints" / "step-00002")
    train(half.parent, 4, resume=True, save_every=1, keep=1)
    assert all(torch.equal(one, weights(half)[name]) for name, one in weights(whole).items())
    assert [(one.step, one.fault()) for one in checkpoints_of(half)] == [(4, None)]
    assert (half / "superseded" / "step-00002").exists()


def test_of_two_checkpoints_of_a_step_the_whole_one_stays(whole: Path, half: Path) -> None:
    shutil.copytree(half / "checkpoints" / "step-00002", half / "checkpoint")
    spoil_weights(half / "checkpoints" / "step-00002")
    train(half.parent, 3, resume=True)
    assert checkpoints_of(half)[0].fault() is None


@pytest.mark.parametrize("name", ["step-00003", "step-00004", "notes"])
def test_what_lies_in_the_way_of_checkpoints_is_moved_aside(half: Path, name: str) -> None:
    (half / "checkpoints" / name).mkdir()
    train(half.parent, 4, resume=True, save_every=1)
    assert (half / "superseded" / name).is_dir()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("complete.json", '{"schema": 1, "step": Infinity, "files": {}}'),
        ("complete.json", '{"schema": 1, "step": 2, "files": []}'),
        ("complete.json", "5"),
        ("state/run.json", '{"options": [1]}'),
        ("state/run.json", "[" * 10_000),
    ],
)
def test_a_crafted_checkpoint_of_another_run_is_left_out(half: Path, file: str, content: str) -> None:
    other = half.parent / "other" / "checkpoint"
    shutil.copytree(half / "checkpoints" / "step-00002", other)
    (other / file).write_text(content)
    assert train(half.parent, 3, resume=True) == half


def test_trajectories_that_somebody_deleted_are_not_missed(half: Path) -> None:
    shutil.rmtree(half / "trajectories")
    assert train(half.parent, 3, resume=True) == half


def test_a_run_that_somebody_else_went_on_with_meanwhile_is_left_alone(half: Path) -> None:
    agent = GRPO(output_dir=half.parent, resume=True, **SMALL)
    assert agent.trainer.past is not None
    train(half.parent, 3, resume=True)
    before = sorted(str(file) for file in half.rglob("*"))
    with pytest.raises(RunDirectoryError, match="Another process has gone on with the run"):
        agent.train(steps=4)
    assert sorted(str(file) for file in half.rglob("*")) == before


def test_a_run_that_has_taken_all_steps_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"eval_episodes": 4}
    run = train(tmp_path, 2, **options)
    before = {str(file): file.stat().st_mtime_ns for file in run.rglob("*")}
    result = GRPO(output_dir=tmp_path, resume=True, **{**SMALL, **options}).train(steps=2)
    assert result.path == run
    assert result.after is not None
    assert len(result.metrics) == 2
    assert {str(file): file.stat().st_mtime_ns for file in run.rglob("*")} == before
    assert "nothing left to do" in capsys.readouterr().out


@pytest.mark.parametrize(("options", "words"), [({"resume": True}, "at least as many"), ({"resume_from": ""}, "more")])
def test_a_run_is_not_gone_on_with_from_beyond_its_last_step(half: Path, options: dict[str, Any], words: str) -> None:
    before = sorted(half.parent.iterdir())
    options = {name: value or str(half) for name, value in options.items()}
    with pytest.raises(ConfigError, match=rf"steps: the run in .* has taken 2; expected {words}, got"):
        train(half.parent, 1 if "resume" in options else 2, **options)
    assert sorted(half.parent.iterdir()) == before


def test_a_learning_rate_that_falls_over_all_steps_makes_another_number_of_steps_heard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, 2, learning_rate_decay="linear")
    train(tmp_path, 3, learning_rate_decay="linear", resume=True)
    said = " ".join(capsys.readouterr().out.split())
    assert "steps 40 in place of 40" not in said
    agent = GRPO(output_dir=tmp_path, steps=5, resume=True, **{**SMALL, "learning_rate_decay": "linear"})
    assert agent.trainer.past is not None
    assert "steps 5 in place of 40: its numbers are no longer the same" in " ".join(capsys.readouterr().out.split())


def test_a_fork_goes_on_itself_with_the_same_command(half: Path) -> None:
    options = {"resume": True, "resume_from": f"{half}@1", "seed": 3}
    fork = train(half.parent, 2, **options)
    assert fork != half
    assert train(half.parent, 3, **options) == fork


def test_a_checkpoint_that_does_not_say_it_is_complete_is_none(half: Path) -> None:
    (half / "checkpoints" / "step-00002" / "complete.json").unlink()
    assert [one.step for one in checkpoints_of(half)] == [1]


def test_a_fork_is_a_new_run_with_the_same_past(whole: Path, half: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(str(file) for file in half.rglob("*"))
    fork = train(half.parent, 4, resume_from=f"{half}@1")
    assert fork != half
    assert sorted(str(file) for file in half.rglob("*")) == before
    assert all(torch.equal(one, weights(fork)[name]) for name, one in weights(whole).items())
    rows = [json.loads(line)["step"] for line in (fork / "metrics.jsonl").read_text().splitlines()]
    assert rows == [1, 2, 3, 4]
    other = train(half.parent, 2, resume_from=str(half / "checkpoints" / "step-00001"), seed=5)
    assert "seed 5 in place of 0" in " ".join(capsys.readouterr().out.split())
    assert not all(torch.equal(one, weights(fork)[name]) for name, one in weights(other).items())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "there is no directory"),
        ("{half}@two", "after @ comes the number of a step"),
        ("{half}/checkpoints", "found those of steps: none"),
        ("{half}/checkpoints/step-00001@2", "expected a checkpoint of step 2, it is of 1"),
        ("{half}@7", r"complete checkpoint of step 7.* found those of steps: 2, 1"),
    ],
)
def test_a_fork_of_what_is_not_there_is_refused(half: Path, name: str, message: str) -> None:
    with pytest.raises(RunDirectoryError, match=message):
        train(half.parent, 4, resume_from=name.format(half=half))


def test_another_algorithm_is_refused(half: Path) -> None:
    with pytest.raises(ConfigError, match="a run of grpo is not one that sft goes on from"):
        SFT(output_dir=half.parent, resume_from=str(half)).train(steps=1)


def test_another_tokenizer_is_refused(half: Path) -> None:
    for note in half.glob("checkpoints/*/state/run.json"):
        facts = json.loads(note.read_text())
        note.write_text(json.dumps({**facts, "tokenizer": "another"}))
        mark = note.parents[1] / "complete.json"
        written = json.loads(mark.read_text())
        del written["files"]["state/run.json"]
        mark.write_text(json.dumps(written))
    with pytest.raises(ConfigError, match="has another tokenizer or chat template than that of the run"):
        train(half.parent, 4, resume=True)


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    class FailingError(LLMGymError):
        """What ends a run after five steps."""

    def failing(episode: Episode) -> float:
        if len(list(tmp_path.glob("*/trajectories/*.parquet"))) == 5:
            raise FailingError("enough")
        return 0.0

    with pytest.raises(FailingError):
        train(tmp_path, 9, scorer=failing, save_every=1, keep=2)
    (run,) = tmp_path.iterdir()
    assert [(one.step, one.path.name) for one in checkpoints_of(run)] == [(5, "checkpoint"), (4, "step-00004")]


class Unfit:
    """A scorer whose state is what it is given."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def score(self, episodes: list[Episode]) -> list[float]:
        return [float(len(episode.actions[0])) for episode in episodes]

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state


@pytest.mark.parametrize(
    ("state", "what"),
    [
        ({"count": np.int64(5)}, "int64 as 'steps/own/scorer/count'"),
        ({"seen": {1, 2}}, "set as"),
        ({(1, 2): 3}, "tuple as a key of"),
        ({b"a": 3}, "bytes as a key of"),
        ({np.int64(1): 3}, "int64 as a key of"),
    ],
)
def test_a_state_that_cannot_be_written_is_refused_before_training(state: Any, what: str, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=what):
        train(tmp_path, 2, scorer=Unfit(state))
    assert not list(tmp_path.iterdir())


def test_a_state_that_turns_unfit_costs_no_weights(tmp_path: Path) -> None:
    class Turning(Unfit):
        def score(self, episodes: list[Episode]) -> list[float]:
            self.state = {"seen": {1}}
            return super().score(episodes)

    with pytest.raises(RunDirectoryError, match="set as"):
        train(tmp_path, 1, scorer=Turning({}))
    (run,) = tmp_path.iterdir()
    assert weights(run)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    one = torch.arange(6.0)
    state = {
        "a/b": one,
        "a": {"b": one.clone() + 1, "view": one[2:4], "again": one},
        1: torch.ones(2, dtype=torch.bfloat16),
        "1": [None, True, 1.5, float("nan"), "x", {"$tensor": 3}],
        "empty": torch.empty(0, 3),
    }
    packed_state(state).write(tmp_path)
    found = read_state(tmp_path)
    assert torch.equal(found["a/b"], one)
    assert torch.equal(found["a"]["b"], one + 1)
    assert torch.equal(found["a"]["view"], one[2:4])
    assert torch.equal(found["a"]["again"], one)
    assert found[1].dtype == torch.bfloat16
    assert repr(found["1"]) == repr(state["1"])
    assert found["empty"].shape == (0, 3)


class Counting:
    """A scorer that pays by how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def score(self, episodes: list[Episode]) -> list[float]:
        found = []
        for episode in episodes:
            self.asked += 1
            found.append((self.asked * 7 % 11) + 0.01 * len(episode.actions[0]))
        return found

    def state_dict(self) -> dict[str, int]:
        return {"asked": self.asked}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.asked = state["asked"]


class Harder(TextEnv):
    """An environment that asks more, the more it was played."""

    max_turns = 1

    def __init__(self) -> None:
        super().__init__()
        self.played = 0

    def begin(self) -> str:
        return f"Count to {int(self.np_random.integers(9))}."

    def respond(self, action: str) -> None:
        return None

    def score(self, episode: Episode) -> float:
        self.played += 1
        return float(len(episode.actions[-1]) % (1 + self.played))

    def state_dict(self) -> dict[str, int]:
        return {"played": self.played}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.played = state["played"]


llmgym.register_env("Harder-resume-v0")(Harder)


@pytest.mark.parametrize("options", [{"scorer": Counting}, {"env": "Harder-resume-v0"}])
def test_what_scorers_and_environments_keep_is_gone_on_with(options: dict[str, Any], tmp_path: Path) -> None:
    def made() -> dict[str, Any]:
        return {name: one() if isinstance(one, type) else one for name, one in options.items()}

    expected = train(tmp_path / "whole", 4, **made())
    train(tmp_path / "parts", 2, **made())
    found = train(tmp_path / "parts", 4, resume=True, **made())
    assert all(torch.equal(one, weights(found)[name]) for name, one in weights(expected).items())


def test_a_run_that_fails_before_its_first_step_leaves_no_directory(tmp_path: Path) -> None:
    class FailingError(LLMGymError):
        """What ends a run at once."""

    def failing(episode: Episode) -> float:
        raise FailingError("no")

    with pytest.raises(FailingError):
        train(tmp_path, 2, scorer=failing)
    assert not list(tmp_path.iterdir())


def test_an_environment_that_changes_the_directory_changes_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    def wandering(episode: Episode) -> float:
        os.chdir(tmp_path / "elsewhere")
        return float(len(episode.actions[0]))

    run = train(Path("runs"), 2, scorer=wandering)
    assert run.is_absolute()
    assert run.parent == tmp_path / "runs"
    assert (run / "checkpoint" / "model.safetensors").exists()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_run_has_one_writer(half: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from llmgym.report.run_directory import RunDirectory; "
        "kept = RunDirectory(Path(sys.argv[1])); print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(half)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(RunDirectoryError, match="Another process is writing to the run directory"):
            train(half.parent, 4, resume=True)
        other.kill()
    assert train(half.parent, 3, resume=True) == half  # a process that is dead holds nothing


def test_an_update_that_is_cut_short_is_not_gone_on_from(
    whole: Path, half: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, calls = Learner.update, iter(range(9))

    def interrupted(self: Learner, batch: Any) -> Any:
        if next(calls) == 1:  # the second of two optimiser steps
            raise KeyboardInterrupt
        return update(self, batch)

    monkeypatch.setattr(Learner, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(half.parent, 4, resume=True)
    assert (half / "checkpoint" / "model.safetensors").exists()
    assert [one.step for one in checkpoints_of(half) if one.fault() is None] == [2, 1]
    monkeypatch.setattr(Learner, "update", update)
    train(half.parent, 4, resume=True)
    assert all(torch.equal(one, weights(half)[name]) for name, one in weights(whole).items())


def test_a_checkpoint_that_cannot_be_written_is_put_elsewhere_and_gone_on_from(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Keeper._write

    def full(self: Keeper, path: Path, state: Any) -> None:
        if path.is_relative_to(tmp_path / "runs"):
            raise OSError("no space left")
        write(self, path, state)

    monkeypatch.setattr(Keeper, "_write", full)
    with pytest.raises(RunDirectoryError, match=r"of step 2 could not be written .* \(no space left\)\. It is in"):
        train(tmp_path / "runs", 2, rescue_dir=tmp_path / "other")
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "learning_curve.png").exists()
    (rescued,) = (tmp_path / "other").glob("*/checkpoint")
    found = train(tmp_path, 4, resume_from=str(rescued))
    assert all(torch.equal(one, weights(found)[name]) for name, one in weights(whole).items())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB, where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", disk], capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_disk_without_room_for_a_checkpoint_is_refused_before_training(small_disk: Path) -> None:
    (small_disk / "other").write_bytes(bytes(8 << 20))
    with pytest.raises(RunDirectoryError, match=r"expected room for a checkpoint of about 0.02 GB, found 0.01 GB"):
        train(small_disk, 1)
    assert [one.name for one in small_disk.iterdir()] == ["other"]


def test_a_disk_that_fills_up_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    shutil.rmtree(small_disk / "other", ignore_errors=True)

    def filling(episode: Episode) -> float:
        other = small_disk / "other"
        if len(list(small_disk.glob("*/trajectories/*.parquet"))) == 2 and not other.exists():
            with other.open("wb") as file:
                while True:
                    try:
                        os.write(file.fileno(), bytes(1 << 16))
                    except OSError:
                        break
        return float(len(episode.actions[0]))

    options: dict[str, Any] = {"lora_rank": 1, "scorer": filling, "rescue_dir": tmp_path / "rescue"}
    with pytest.raises(OSError, match=r"could not be written|cannot be written to"):
        train(small_disk, 9, save_every=1, **options)
    (rescued,) = (tmp_path / "rescue").glob("*/checkpoint")
    assert checkpoints_of(rescued.parent)[0].step == 3
    (small_disk / "other").unlink()
    train(tmp_path, 4, resume_from=str(rescued), **options)


def test_a_directory_that_vanishes_ends_the_run_with_what_it_learnt_elsewhere(tmp_path: Path) -> None:
    def vanishing(episode: Episode) -> float:
        if len(list(tmp_path.glob("runs/*/trajectories/*.parquet"))) == 2:
            shutil.rmtree(tmp_path / "runs")
        return 1.0

    with pytest.raises(RunDirectoryError, match="could not be written"):
        train(tmp_path / "runs", 9, scorer=vanishing, rescue_dir=tmp_path / "rescue")
    (rescued,) = (tmp_path / "rescue").glob("*/checkpoint")
    assert checkpoints_of(rescued.parent)[0].step == 3


def test_the_end_of_its_time_saves_and_is_gone_on_with(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Interrupted) as ended:
        train(tmp_path, 100, max_time="00:00:03")
    assert ended.value.code == 75
    assert "Its time is up" in capsys.readouterr().out
    (run,) = tmp_path.iterdir()
    (checkpoint,) = checkpoints_of(run)
    assert train(tmp_path, checkpoint.step + 1, resume=True) == run


@pytest.mark.parametrize("max_time", ["soon", "1:2:3", "12:60:00", 5])
def test_a_time_that_is_none_is_refused(max_time: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_time: expected hours, minutes and seconds"):
        GRPO(output_dir=tmp_path, max_time=max_time)


def test_a_run_that_takes_more_memory_than_it_may_saves_and_ends(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held: list[bytes] = []
    bound = peak_bytes() / GIB + 0.5

    def greedy(episode: Episode) -> float:
        while len(list(tmp_path.glob("*/trajectories/*.parquet"))) == 2 and peak_bytes() <= bound * GIB:
            held.append(b"x" * (GIB // 8))
        return 1.0

    with pytest.raises(Interrupted) as ended:
        train(tmp_path, 20, scorer=greedy, max_memory=bound)
    assert ended.value.code == 75
    assert re.search(rf"It has taken [\d.]+ GiB of memory, and may take {bound:g}\b", capsys.readouterr().out)
    (run,) = tmp_path.iterdir()
    (checkpoint,) = checkpoints_of(run)
    assert checkpoint.step >= 3
    with pytest.raises(ConfigError, match=r"max_memory: this process has taken .* before the first step"):
        train(tmp_path, 20, max_memory=bound)
    more = peak_bytes() / GIB + 1
    assert train(tmp_path, checkpoint.step + 1, scorer=greedy, max_memory=more, resume=True) == run


def test_a_run_keeps_to_the_disk_that_it_may_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="max_disk: 2 checkpoints may be there at a time"):
        train(tmp_path / "none", 1, max_disk=0.001)
    assert not list((tmp_path / "none").iterdir())
    agent = GRPO(**SMALL, output_dir=tmp_path / "first")
    first = agent.train(steps=1).path
    episodes = bytes_in(first / "trajectories")
    allowed = 2 * 1.2 * agent.trainer.checkpoint_bytes + 5 * episodes
    run = train(tmp_path / "some", 9, max_disk=allowed / GIB)
    assert bytes_in(run) <= allowed
    assert "Episodes do not fit into max_disk: those of one step in " in capsys.readouterr().out
    steps = [step_of(shard) for shard in sorted(run.glob("trajectories/*.parquet"))]
    assert steps[-1] == 9
    assert 1 < len(steps) < 9
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 9


def test_no_child_survives_a_run_that_is_terminated_twice(tmp_path: Path) -> None:
    options = {"prompts_per_step": 1, "group_size": 2, "eval_episodes": 0, "steps": 500, "output_dir": tmp_path}
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "llmgym.agents.grpo", "--isolate-env", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as run:
        while run.poll() is None and not any(file.stat().st_size for file in tmp_path.glob("*/metrics.jsonl")):
            signal.sigtimedwait([], 0.05)
        run.send_signal(signal.SIGTERM)
        run.send_signal(signal.SIGINT)
        assert run.wait(timeout=60) in (130, 143)
    left = subprocess.run(["ps", "-o", "pid=", "-s", str(run.pid)], capture_output=True, text=True, check=False).stdout
    assert not left.strip()

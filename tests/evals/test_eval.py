"""`llmgym eval`: the same episodes as in training, numbers that say what they are out of, and going on."""

import collections
import contextlib
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tiers import long_but

import llmgym
from llmgym.agents import GRPO
from llmgym.cli import main
from llmgym.config.presets import directory_of
from llmgym.data.trajectories import read_trajectories
from llmgym.evals.summary import Measured, Summary
from llmgym.evals.table import print_summaries
from llmgym.train.checkpoints import final_path, new_checkpoint
from llmgym.train.trainer import Result

SMALL = {"prompts_per_step": 2, "group_size": 2, "max_tokens": 40, "sample_every": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Result:
    agent = GRPO(output_dir=tmp_path_factory.mktemp("runs"), steps=2, eval_episodes=12, save_every=1, keep=5, **SMALL)
    return agent.train()


def evaluated(capsys: pytest.CaptureFixture[str], output: Path, *words: str, code: int = 0) -> Any:
    """Return what the command prints as JSON, alone."""
    assert main(["eval", *words, "--json", "--output-dir", str(output)]) == code
    printed = capsys.readouterr()
    return json.loads(printed.out) if not code else printed.err


def test_a_run_is_evaluated_by_the_episodes_that_it_was_evaluated_by_itself(
    run: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = evaluated(capsys, tmp_path, "--model", "tiny", str(run.path), "-n", "12", "--max-tokens", "40")
    for found, own in ((before, run.before), (after, run.after)):
        assert own is not None
        assert found["success"]["mean"] == pytest.approx(own.success)
        assert found["reward"]["mean"] == pytest.approx(own.reward)
        assert (found["success"]["low"], found["success"]["high"]) == pytest.approx((own.success_low, own.success_high))
        assert found["parts"]["acc_main"] == pytest.approx(found["success"])
        for name, value in found["parts"].items():
            assert value["mean"] == pytest.approx(own.parts[name])
        assert (found["tasks"], found["episodes"], found["judged"], found["unscored"]) == (12, 12, 12, 0)
        assert found["env"] == "llmgym/AIOpsTriage-v0"
        assert found["pass_at"] == {"1": found["success"]["mean"]}


def test_a_step_of_a_run_is_evaluated_with_the_options_of_the_run(
    run: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = evaluated(capsys, tmp_path, "--model", f"{run.path}@1", "-n", "3", "--samples", "2")
    settings = json.loads((Path(found["path"]) / "settings.json").read_text())
    assert settings["max_tokens"] == 40
    assert settings["env_kwargs"] == {"difficulty": 0}
    assert Path(settings["weights"][0][0]).suffix == ".safetensors"
    said = evaluated(capsys, tmp_path, "--model", f"{run.path}@7", code=2)
    assert "has no complete checkpoint of step 7; it has those of: 2, 1 (see --save-every and --keep)" in said


def test_several_episodes_of_a_task_differ_and_are_counted_by_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = evaluated(capsys, tmp_path, "--model", "tiny", "-n", "10", "--samples", "4", "--max-tokens", "40")
    (shard,) = Path(found["path"]).glob("*.parquet")
    episodes = read_trajectories(shard)
    assert [episode.group for episode in episodes] == [task for task in range(10) for _ in range(4)]
    assert len({tuple(episode.tokens) for episode in episodes}) > 30
    successes = [sum(e.parts["success"] == 1.0 for e in episodes if e.group == task) for task in range(10)]
    assert found["success"]["mean"] == pytest.approx(sum(successes) / 40)
    assert found["pass_at"]["4"] == pytest.approx(sum(count > 0 for count in successes) / 10)
    assert found["pass_hat"]["4"] == pytest.approx(sum(count == 4 for count in successes) / 10)
    assert list(found["pass_at"]) == ["1", "2", "4"]


def test_samples_of_a_task_vote_where_its_environment_names_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", "tiny", "-n", "10", "--samples", "4", "--max-tokens", "40"]
    (found,) = evaluated(capsys, tmp_path, *words)
    (shard,) = Path(found["path"]).glob("*.parquet")
    won = none = 0
    for _, samples in itertools.groupby(read_trajectories(shard), key=lambda one: one.group):
        given = []
        for one in samples:
            with contextlib.suppress(ValueError):
                named = json.loads(one.messages[-1].content)
                given.append((named["service"], named["incident_type"], one.succeeded))
        none += 4 - len(given)
        votes = collections.Counter([*given, *[("", "", False)] * (4 - len(given))]).most_common()
        won += votes[0][0][2] and (len(votes) == 1 or votes[0][1] > votes[1][1])
    assert found["maj_at"]["4"] == pytest.approx(won / 10)
    assert found["unanswered"] == none
    assert main(["eval", *words, "--output-dir", str(tmp_path)]) == 0
    assert "maj@4" in capsys.readouterr().out


def test_a_model_whose_tasks_are_others_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--model", "tiny", "-n", "1", "--max-tokens", "4", "--output-dir", str(tmp_path)]
    known = "The model 'tiny' was made for llmgym/AIOpsTriage-v0, and knows nothing else: expect little success in "
    for env, warned in (("Sums", True), ("AIOpsTriage", False)):
        assert main([*words, "--env", env]) == 0
        assert (f"{known}llmgym/{env}-v0." in capsys.readouterr().err) == warned


def test_temperature_0_has_one_reply_whatever_the_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "tiny", "-n", "2", "--samples", "3", "--temperature", "0", "--max-tokens", "30"]
    (found,) = evaluated(capsys, tmp_path, *words)
    (shard,) = Path(found["path"]).glob("*.parquet")
    assert len({tuple(episode.tokens) for episode in read_trajectories(shard)}) == 2


@pytest.mark.slow
@pytest.mark.parametrize("by", long_but([signal.SIGKILL, signal.SIGINT], signal.SIGKILL))
def test_an_evaluation_that_is_ended_goes_on_and_comes_to_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], by: signal.Signals
) -> None:
    words = ["--model", "tiny", "-n", "300", "--max-tokens", "8"]
    (expected,) = evaluated(capsys, tmp_path / "whole", *words)
    command = [sys.executable, "-m", "llmgym", "eval", *words, "--output-dir", str(tmp_path / "killed")]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not list(tmp_path.glob("killed/*/*.parquet")) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(by)
    _, said = process.communicate(timeout=60)
    if by == signal.SIGINT:
        assert process.returncode == 130
        assert "256 of 300 episodes are kept.\nllmgym eval: interrupted; the same command goes on\n" in said
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob("killed/*/*.parquet")}
    assert len(kept) == 1
    (found,) = evaluated(capsys, tmp_path / "killed", *words)
    assert all(file.stat().st_mtime_ns == before for file, before in kept.items())
    for name, value in expected.items():
        assert name in ("path", "seconds") or found[name] == value, name


def test_tables_hold_every_number_and_tell_models_apart_that_are_called_alike() -> None:
    measured = Measured(0.8125, 0.5381, 0.9514, 0.25)
    names = [f"grpo-AIOpsTriage-v0-20261130-105648@{step}" for step in (4, 8, 16)]
    for called, shown in ((names, ["…30-105648@4", "…30-105648@8", "…0-105648@16"]), (["tiny"] * 3, ["1: tiny"])):
        console = Console(file=io.StringIO(), width=80)
        print_summaries(console, [summary(name, measured) for name in called])
        printed = console.file.getvalue()  # type: ignore[attr-defined]
        assert max(len(line) for line in printed.splitlines() if line[0] in "┏┃┡│└") <= 80
        assert printed.count("0.812 (0.538 to 0.951)") == 6
        assert printed.count("0.812 ± 0.250") == 9
        assert all(name in printed for name in (*called, *shown))


def test_every_name_in_the_json_is_explained() -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    names = [*Summary.__dataclass_fields__, *Measured.__dataclass_fields__]
    assert [name for name in names if f"`{name}`" not in page] == []


def summary(name: str, measured: Measured) -> Summary:
    """Return what an evaluation of 16 tasks with four samples each came to, each number of it the same."""
    parts = dict.fromkeys(("json_ok", "incident_type", "no_early_conclusion"), measured)
    by_k = dict.fromkeys((1, 2, 4), 0.5)
    counts = {"tasks": 16, "episodes": 64, "judged": 64, "unscored": 0, "unanswered": 3, "no_reply": 0}
    tokens = {"reply_tokens": 28.0, "episode_tokens": 56.0, "read_tokens": None, "written_tokens": None, "cost": None}
    rest = {"reasons": {}, "cut_off": 0.0, "seconds": 6.7, "path": "evals/one"}
    return Summary(
        name, "llmgym/AIOpsTriage-v0", "eval", success=measured, reward=measured, parts=parts, pass_at=by_k,
        pass_hat=by_k, maj_at=by_k, **counts, **tokens, **rest,
    )  # fmt: skip


@llmgym.register_env("Unreliable-v0")
class Unreliable(llmgym.TextEnv):
    """Every reply is right; about every fourth task breaks."""

    top_score = 1.0

    def begin(self) -> str:
        self.broken = int(self.np_random.integers(4)) == 0
        return f"Say something about {self.np_random.integers(100)}."

    def respond(self, action: str) -> None:
        if self.broken:
            raise RuntimeError("the service is down")

    def score(self, episode: llmgym.Episode) -> float:
        return 1.0


def test_with_another_scorer_in_the_same_file_it_is_another_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rewards.py"
    words = ["--model", "tiny", "-n", "2", "--max-tokens", "8", "--scorer", f"0.5*{file}:paid + repetition"]
    places = []
    for pay in (1.0, 1.0, 0.5):
        file.write_text(f"def paid(episode):\n    return {pay}\n")
        (found,) = evaluated(capsys, tmp_path / "evals", *words)
        places.append(found["path"])
    assert places[0] == places[1] != places[2]


def test_a_scorer_that_fails_is_told_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.py").write_text("def broken(completions, answer):\n    return [1.0] * len(completions)\n")
    words = ["--model", "tiny", "-n", "3", "--max-tokens", "8", "--scorer", f"{tmp_path / 'broken.py'}:broken"]
    (found,) = evaluated(capsys, tmp_path / "evals", *words)
    assert found["unscored"] == 3
    ((reason, times),) = found["reasons"].items()
    assert "answer" in reason
    assert times == 3


def test_an_episode_whose_environment_fails_is_no_failure_of_the_model_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--env", "Unreliable-v0", "--model", "tiny", "-n", "24", "--max-tokens", "8", "--max-failure-rate", "1"]
    (found,) = evaluated(capsys, tmp_path, *words)
    assert found["success"]["mean"] == found["reward"]["mean"] == 1.0
    assert found["success"]["low"] < 0.95
    assert 0 < found["unscored"] == 24 - found["judged"] < 24
    assert main(["eval", *words, "--output-dir", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert f"{found['unscored']} more have no verdict." in printed.out
    assert f"{found['unscored']} without a score: the environment of " in printed.out
    assert "RuntimeError: the service is down" in printed.out
    assert printed.err == ""  # everything was there already


def test_other_rows_are_another_evaluation_and_the_same_ones_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for name, word in (("a", "one"), ("b", "two"), ("c", "one")):
        data = tmp_path / f"{name}.jsonl"
        data.write_text(json.dumps({"prompt": f"Say {word}.", "answer": word}) + "\n")
        words = ["--env", "qa", "--model", "tiny", "--data", str(data), "-n", "1", "--max-tokens", "8"]
        (found,) = evaluated(capsys, tmp_path / "evals", *words)
        paths.append(found["path"])
    assert paths[0] == paths[2] != paths[1]


def test_a_run_without_a_checkpoint_or_an_environment_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("env: null\nmodel: tiny\n")
    said = evaluated(capsys, tmp_path, "--model", str(tmp_path), code=2)
    assert f"{str(tmp_path)!r}: this run has no complete checkpoint." in said
    with new_checkpoint(final_path(tmp_path), 2) as partial:
        shutil.copytree(directory_of("tiny"), partial)
        (partial / "state").mkdir()
        (partial / "state" / "state.json").write_text("{}")
    said = evaluated(capsys, tmp_path, "--model", str(tmp_path), code=2)
    assert f"{str(tmp_path)!r}: this run has no environment; expected --env, such as AIOpsTriage" in said


def test_mistakes_are_told_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model := tmp_path / "model").mkdir()
    neither = f"{str(model)!r}: expected a run or a model; it has neither a config.yaml nor a config.json"
    assert neither in evaluated(capsys, tmp_path, "--model", str(model), code=2)
    assert "@4': expected a run or a model" in evaluated(capsys, tmp_path, "--model", f"{model}@4", code=2)
    (model / "config.json").write_text("{}")
    assert "env: expected an environment" in evaluated(capsys, tmp_path, "--model", str(model), code=2)
    for name in (str(tmp_path / "nope"), "tiny,nope"):
        assert f"--model {name!r}: no such directory" in evaluated(capsys, tmp_path, "--model", name, code=2)
    assert "'runs/one': expected options; --model runs/one evaluates it" in evaluated(
        capsys, tmp_path, "runs/one", code=2
    )
    assert "no environment" in evaluated(capsys, tmp_path, "--model", "tiny", "--env", "Nope-v0", code=2).lower()
    assert "no argument 'dificulty'" in evaluated(
        capsys, tmp_path / "new", "--model", "tiny", "--env-kwargs", "dificulty=1", "-n", "1", code=2
    )
    assert not list((tmp_path / "new").iterdir())
    (file := tmp_path / "file").write_text("")
    assert "expected a directory that can be written to" in evaluated(
        capsys, file, "--model", "tiny", "-n", "1", code=2
    )

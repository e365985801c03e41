"""What is installed, what would be used, and what is missing is told."""

import importlib.metadata
import json
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from llmgym import cli, doctor

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def test_it_names_each_requirement_and_extra_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    own = {one["name"] for one in told["packages"] if one["extra"] is None}
    assert own == {Requirement(line).name for line in PROJECT["dependencies"]}
    for extra in PROJECT["optional-dependencies"].keys() - {"dev"}:
        asked = {Requirement(line).name for line in PROJECT["optional-dependencies"][extra]}
        assert asked == {one["name"] for one in told["packages"] if one["extra"] == extra}
    assert all(one["fits"] == (one["found"] is not None) for one in told["packages"] if one["extra"] is None)
    assert told["llmgym"] == importlib.metadata.version("llmgym-rl")


def test_a_package_that_is_missing_or_too_old_is_named_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = importlib.metadata.version

    def version(name: str) -> str:
        if name == "rich":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.1" if name in ("torch", "peft") else known(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert cli.main(["doctor"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "llmgym needs rich>=13.7 (not installed)." in said
    assert "llmgym needs torch>=2.10 (0.1 is here)." in said
    assert "peft>=0.18 (0.1 is here)" in said
    assert {one.name for one in doctor.look().broken} == {"rich", "torch"}


def test_it_tells_the_engine_and_the_device_that_a_run_takes() -> None:
    facts = doctor.look().facts
    assert facts["device"].split()[0].rstrip(":") in ("cpu", "cuda")
    assert facts["engine"].split()[0] in ("local", "sglang")
    assert "GiB free" in facts["memory"]


def row(**seconds: float) -> dict[str, float]:
    """Return a step of one second, of which half is generation and half is learning, and what is given besides."""
    own = {"step": 1, "rollout_seconds": 0.5, "generation_seconds": 0.5, "learning_seconds": 0.5, "seconds": 1.0}
    return {**own, **seconds}


OPTIONS = {"prompts_per_step": 4, "group_size": 8, "epochs": 1, "max_staleness": 0, "rollout_workers": 0}


def test_phases_add_up_to_the_time_of_a_step_and_what_is_done_now_and_then_is_shared_out() -> None:
    rows = [row(evaluation_seconds=9.0), *(row(saving_seconds=0.2, evaluation_seconds=n % 2) for n in range(10))]
    found = doctor.diagnose(rows, OPTIONS, cores=2)
    assert found.seconds == pytest.approx(1.7)
    assert sum(found.phases.values()) == pytest.approx(found.seconds)
    assert found.phases["evaluation"] == pytest.approx(0.5)
    assert found.phases["saving"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("seconds", "options", "bound", "option", "expected"),
    [
        ({"evaluation_seconds": 4.0}, {"eval_every": 2}, "evaluation", "--eval-every 8", 2.0),
        ({"saving_seconds": 2.0}, {"save_every": 1}, "saving", "--save-every 4", 1.5),
        (
            {"learning_seconds": 3.5, "updating_seconds": 3.0, "seconds": 4.0},
            {"epochs": 3},
            "learning",
            "--epochs 1",
            2.0,
        ),
        ({"rollout_seconds": 2.5, "scoring_seconds": 2.0, "seconds": 3.0}, {}, "scoring", "--scorer-workers 4", 1.5),
        (
            {"rollout_seconds": 3.7, "environment_seconds": 3.2, "environment_working_seconds": 0.0, "seconds": 4.2},
            {},
            "environment",
            "blocking = True in the environment, or --isolate-env",
            1.1,
        ),
        (
            {"rollout_seconds": 2.5, "environment_seconds": 2.0, "environment_working_seconds": 2.0, "seconds": 3.0},
            {},
            "environment",
            "--isolate-env",
            1.5,
        ),
        (
            {"rollout_seconds": 4.0, "generation_seconds": 4.0, "seconds": 4.5},
            {},
            "generation",
            "--rollout-workers 1 --max-staleness 1",
            4.0,
        ),
    ],
)
def test_the_option_that_moves_the_bottleneck_comes_with_what_it_should_give(
    seconds: dict[str, float], options: dict[str, int], bound: str, option: str, expected: float
) -> None:
    found = doctor.diagnose([row(**seconds)] * 8, {**OPTIONS, **options}, cores=4)
    assert found.bound == bound
    assert found.advice[0].option == option
    assert found.advice[0].seconds == pytest.approx(expected)


def test_a_run_that_goes_on_is_read_up_to_its_last_whole_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps({**row(), "reward": float("nan")}).replace("NaN", "null")] * 5
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"seconds": 4')
    (tmp_path / "config.yaml").write_text("epochs: 1\nprompts_per_step: 2\ngroup_size: 2\n")
    assert cli.main(["doctor", str(tmp_path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1.00 s per step, over 4 steps" in said
    assert "It is bound by generation: 50% of the time." in said
    assert cli.main(["doctor", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] == pytest.approx(1.0)


def test_what_is_no_run_or_has_no_step_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", str(tmp_path)]) == 2
    assert "expected the directory of a run" in capsys.readouterr().err
    for name in ("metrics.jsonl", "config.yaml"):
        (tmp_path / name).write_text("")
    assert cli.main(["doctor", str(tmp_path)]) == 2
    assert "expected a run that has taken a step" in capsys.readouterr().err

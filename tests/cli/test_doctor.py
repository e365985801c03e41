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

"""An endpoint that a real SGLang serves is evaluated, on a CPU: `make test-sglang`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sglang_http import sglang_server

from llmgym.cli import main
from llmgym.data.trajectories import read_trajectories
from llmgym.demo import TINY_PATH

pytest.importorskip("sglang")
CPU = pytest.importorskip("cpu_options").CPU


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with sglang_server(TINY_PATH, CPU) as found:
        yield f"{found}/v1"


def evaluated(capsys: pytest.CaptureFixture[str], output: Path, *words: str) -> Any:
    assert main(["eval", "--output-dir", str(output), "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)[0]


def test_it_does_as_well_as_the_same_weights_here(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--env", "AIOpsTriage", "--env-kwargs", "difficulty=0", "-n", "100"]
    here = evaluated(capsys, tmp_path, "--model", "tiny", *asked)
    there = evaluated(capsys, tmp_path, "--endpoint", url, "--model", "tiny", *asked)
    assert there["judged"] == here["judged"] == 100
    for name in ("success", "reward"):
        assert there[name]["low"] <= here[name]["high"], (here[name], there[name])
        assert here[name]["low"] <= there[name]["high"], (here[name], there[name])
    assert there["parts"]["json_ok"]["mean"] == pytest.approx(here["parts"]["json_ok"]["mean"], abs=0.06)
    assert there["written_tokens"] == pytest.approx(here["written_tokens"], rel=0.03)
    assert there["read_tokens"] > there["written_tokens"]
    seen = [one.messages[0].content for one in episodes_in(here)]
    assert [one.messages[0].content for one in episodes_in(there)] == seen, "the same tasks"
    assert main(["compare", here["path"], there["path"], "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["tasks"] == 100
    assert compared["low"] <= 0 <= compared["high"] or not compared["found"]


def test_at_temperature_0_it_says_what_the_embedded_engine_says(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--env", "AIOpsTriage", "--env-kwargs", "difficulty=0", "-n", "20", "--temperature", "0"]
    here = evaluated(capsys, tmp_path, "--model", "tiny", *asked)
    there = evaluated(capsys, tmp_path, "--endpoint", url, "--model", "tiny", *asked)
    pairs = zip(episodes_in(here), episodes_in(there), strict=True)
    alike = [one.messages == other.messages for one, other in pairs]
    assert sum(alike) >= 19, "but for a tie of two tokens"
    assert there["written_tokens"] == pytest.approx(here["written_tokens"], abs=30)


def episodes_in(found: Any) -> Any:
    return [one for file in sorted(Path(found["path"]).glob("*.parquet")) for one in read_trajectories(file)]

"""A report is one file that has its data and asks nothing else."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmgym.cli import main
from tests.view.conftest import episode


def data_of(page: str) -> Any:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def written(path: Path, *words: str) -> str:
    assert main(["report", *words, "-o", str(path)]) == 0
    return path.read_text(encoding="utf-8")


def test_a_report_has_all_curves_and_the_first_groups_of_every_step(
    real_runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = written(tmp_path / "report.html", *map(str, real_runs), "--episodes", "8")
    data = data_of(page)
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'report.html'}: 40 episodes, ")
    for run in real_runs:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert data["metrics"][run.name]["columns"]["reward"] == [line["reward"] for line in lines]
        own = [row for row in data["rows"] if row["run"] == run.name]
        assert [(row["step"], row["index"]) for row in own] == [
            (step, index) for step in range(1, len(lines) + 1) for index in range(8)
        ]
    assert len(data["episodes"]) == 40
    assert "of fast, 24 of 36, the first groups of each of 3 steps, up to 8 episodes" in data["sample"]


def test_a_report_of_a_long_run_has_steps_at_even_distances(
    run_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmgym.view.report.MOST", 8)
    path = run_of({step: [episode(), episode("no", 0.0)] for step in range(1, 14)})
    data = data_of(written(tmp_path / "report.html", str(path), "--episodes", "2"))
    assert [row["step"] for row in data["rows"][::2]] == [1, 5, 9, 13]
    assert "8 of 26, the first groups of 4 of 13 steps" in data["sample"]
    assert data["metrics"]["mine"]["count"] == 13


def test_no_step_is_left_out_of_a_report_that_has_room_for_all_episodes(
    run_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmgym.view.report.MOST", 8)
    path = run_of({step: [episode(), episode("no", 0.0)] for step in range(1, 5)})
    data = data_of(written(tmp_path / "report.html", str(path), "--episodes", "8"))
    assert [row["step"] for row in data["rows"]] == [1, 1, 2, 2, 3, 3, 4, 4]


def test_a_group_is_whole_even_if_it_is_larger_than_asked(real_runs: list[Path], tmp_path: Path) -> None:
    data = data_of(written(tmp_path / "report.html", str(real_runs[1]), "--episodes", "1"))
    assert [(row["step"], row["index"]) for row in data["rows"]] == [(s, i) for s in (1, 2) for i in range(4)]


def test_the_rules_of_a_report_allow_its_own_script_and_style_alone(real_runs: list[Path], tmp_path: Path) -> None:
    page = written(tmp_path / "report.html", str(real_runs[0]))
    (rules,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    for tag, inner in (
        ("script", re.findall(r"<script>(.*?)</script>", page, re.DOTALL)),
        ("style", re.findall(r"<style>(.*?)</style>", page, re.DOTALL)),
    ):
        (text,) = inner
        assert f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in rules
    assert rules.startswith("default-src 'none'")
    assert "unsafe" not in rules
    assert page.index("Content-Security-Policy") < page.index("<style>")
    assert not re.findall(r'(?:src|href)="(?!data:,|#)', page), "nothing is loaded"


def test_data_cannot_end_its_script(run_of: Callable[..., Path], tmp_path: Path) -> None:
    said = "</script><script>alert(1)</script><!-- \u2028 ]]>"
    page = written(tmp_path / "report.html", str(run_of({1: [episode(said)]})))
    assert "alert(1)</script>" not in page
    (told,) = data_of(page)["episodes"].values()
    assert told["messages"][-1]["content"] == said.replace("\u2028", r"\u2028")


def test_the_result_is_printed_as_json(
    real_runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path / "report.html", str(real_runs[0]), "--json")
    result = json.loads(capsys.readouterr().out)
    assert result == {
        "path": str(tmp_path / "report.html"),
        "faults": [],
        "episodes": 36,
        "bytes": (tmp_path / "report.html").stat().st_size,
    }


def test_broken_files_are_named_and_the_rest_is_reported(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "trajectories" / "step-00002.parquet").write_bytes(b"PAR1")
    data = data_of(written(tmp_path / "report.html", str(copied)))
    assert {row["step"] for row in data["rows"]} == {1, 3}
    assert "step-00002.parquet" in data["runs"][0]["faults"][0]
    assert "step-00002.parquet" in capsys.readouterr().out


def test_a_file_that_cannot_be_written_is_told(
    real_runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(real_runs[0]), "-o", str(tmp_path / "no" / "report.html")]) == 2
    assert "expected a file that can be written" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 2

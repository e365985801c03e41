"""What a run prints and leaves behind."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from llmgym.errors import RunDirectoryError
from llmgym.evaluate import Evaluation
from llmgym.report.console import ROWS, PlainConsole, Progress, notify, print_evaluations, print_table
from llmgym.report.curve import draw_learning_curve
from llmgym.report.run_directory import RunDirectory
from llmgym.rollout.trajectory import Trajectory
from llmgym.types import Message


def metrics(step: int, reward: float = 0.5) -> dict[str, float]:
    names = ("reward", "success", "entropy", "kl", "reply_tokens", "tokens_per_second", "seconds")
    return {"step": step, **dict.fromkeys(names, 0.5), "reward": reward}


def evaluation(success: float) -> Evaluation:
    return Evaluation(500, success, success - 0.04, success + 0.04, success, {"json_ok": 1.0, "success": success}, 0)


def log() -> PlainConsole:
    return PlainConsole(file=io.StringIO(), width=100, force_terminal=False)


def printed(console: PlainConsole) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("steps", [1, 3, 10, 11, 40, 997])
def test_a_run_of_any_length_prints_a_header_and_at_most_a_dozen_rows(steps: int) -> None:
    console = log()
    progress = Progress(steps, console)
    for step in range(1, steps + 1):
        progress.add(step, metrics(step))
    header, *rows = printed(console)
    assert len(rows) == min(ROWS, steps) < 12
    assert rows[-1].split()[0] == f"{steps}/{steps}"
    assert rows[-1].endswith("0 s")
    assert all(len(row) == len(rows[0]) for row in rows)
    assert header.index("kl") + 2 == rows[0].index("0.500", header.index("entropy") + 8) + 5


def test_a_row_is_the_mean_since_the_last_one() -> None:
    console = log()
    progress = Progress(20, console)
    for step, reward in ((1, 0.0), (2, 1.0), (3, 0.25), (4, 0.25)):
        progress.add(step, metrics(step, reward))
    assert [row.split()[1] for row in printed(console)] == ["reward", "0.500", "0.250"]


def test_a_column_is_there_if_its_metric_is() -> None:
    console = log()
    Progress(1, console).add(1, {"loss": 0.25, "seconds": 1.0})
    header, row = printed(console)
    assert header.split() == ["step", "loss", "s/step", "time", "left"]
    assert row.split()[:3] == ["1/1", "0.2500", "1.00"]


def test_a_conversation_is_printed_whole_and_as_it_is() -> None:
    console = log()
    episode = Trajectory(seed=3, group=0, score=None, messages=[Message("user", "[M1] " + "long " * 50)])
    Progress(1, console).conversation(7, episode)
    title, line, _ = printed(console)
    assert "step 7: seed 3, no score" in title
    assert line == "user  [M1] " + "long " * 50


def test_the_last_table_fits_a_log() -> None:
    console = log()
    print_evaluations(console, {"before training": evaluation(0.3), "after training": evaluation(0.95)})
    text = "\n".join(printed(console))
    assert "0.260 to 0.340" in text
    assert "after training" in text
    assert "500 held-out episodes" in text


@pytest.mark.parametrize("width", [36, 50, 80, 120])
def test_columns_that_do_not_fit_follow_in_another_table_and_no_cell_is_cut(width: int) -> None:
    console = PlainConsole(file=io.StringIO(), width=width, force_terminal=False)
    columns = [(f"column {number}", [f"0.{number}12 (0.1 to 0.9)", "-"]) for number in range(6)]
    print_table(console, "Title", "corner", ["first", "second"], columns)
    lines = printed(console)
    assert all(len(line) <= width for line in lines)
    assert all(sum(cell in line for line in lines) == 1 for _, (cell, _) in columns)
    tables = sum("corner" in line for line in lines)
    assert tables == sum("first" in line for line in lines) == math.ceil(6 / max(1, (width - 11) // 23))


def test_the_last_table_says_how_many_episodes_have_no_score_if_some_have_none() -> None:
    for missing in (0, 7):
        console = log()
        print_evaluations(console, {"before": evaluation(0.3), "after": replace(evaluation(0.9), missing=missing)})
        assert ("no score" in "\n".join(printed(console))) == bool(missing)


def test_the_last_table_has_ten_rows_at_most_with_the_first_and_the_last_evaluation() -> None:
    console = log()
    print_evaluations(console, {f"after step {step}": evaluation(0.5) for step in range(100)})
    rows = [line for line in printed(console) if "after step" in line]
    assert len(rows) == 10
    assert "after step 0 " in rows[0]
    assert "after step 99 " in rows[-1]


def test_the_curve_is_a_picture_also_where_a_step_has_no_score(tmp_path: Path) -> None:
    steps = [metrics(1), metrics(2, math.nan), metrics(3)]
    before, on_the_way, after = (replace(evaluation(0.3 * (1 + step)), step=step) for step in range(3))
    for evaluations in ({}, {"before": before}, {"before": before, "after step 1": on_the_way, "after": after}):
        draw_learning_curve(tmp_path / "curve.png", "title", steps, evaluations)
        assert Image.open(tmp_path / "curve.png").size[0] > 800


def test_run_directories_are_new_and_metrics_are_json(tmp_path: Path) -> None:
    runs = [RunDirectory.new(tmp_path, "same") for _ in range(3)]
    runs[0].describe("steps: 1\n", {"seed": 5})
    assert len({run.path for run in runs}) == 3
    runs[0].add_metrics({"step": 1, "reward": math.nan})
    assert json.loads((runs[0].path / "metrics.jsonl").read_text()) == {"step": 1, "reward": None}
    assert json.loads((runs[0].path / "environment.json").read_text())["seed"] == 5
    assert not (runs[1].path / "metrics.jsonl").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match=r"file'.*expected a directory that can be written to"):
        RunDirectory.new(tmp_path / "file", "x")


@pytest.mark.parametrize(
    "text", ["\x1b]0;owned\x07", "\x1b[2J", "\x9b31m", "a\rb", "\x00", "\u202eabc", "\x1bP1\x1b\\\\"]
)
def test_no_text_takes_over_a_terminal(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    console = log()
    said = [Message("user", f"[bold]{text}[/bold]"), Message("assistant", f"{text}[/]")]
    Progress(2, console).conversation(1, Trajectory(seed=0, group=0, messages=said))
    notify(f"{text} [/red]")
    shown = "\n".join(printed(console)) + capsys.readouterr().out
    assert all(one.isprintable() or one == "\n" for one in shown)
    assert "[bold]" in shown
    assert "[/red]" in shown


def test_a_run_directory_has_one_writer_until_it_is_closed(tmp_path: Path) -> None:
    run = RunDirectory.new(tmp_path, "x")
    with pytest.raises(RunDirectoryError, match="Another process is writing to the run directory"):
        RunDirectory(run.path)
    run.close()
    RunDirectory(run.path).close()


def test_going_back_moves_later_steps_aside_and_mends_a_line_that_was_cut_off(tmp_path: Path) -> None:
    run = RunDirectory.new(tmp_path, "x")
    rows = [{"step": step, "reward": math.nan if step == 2 else 0.5} for step in (1, 2, 3)]
    for row in rows:
        run.add_metrics(row)
        run.add_trajectories(int(row["step"]), [Trajectory(0, 0)])
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "rew')
    run.go_back(rows[:2])
    kept = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert kept == [{"step": 1, "reward": 0.5}, {"step": 2, "reward": None}]
    assert sorted(file.name for file in (run.path / "trajectories").iterdir()) == [
        "step-00001.parquet",
        "step-00002.parquet",
    ]
    (aside,) = (run.path / "superseded").iterdir()
    assert (aside / "metrics.jsonl").read_text() == '{"step": 3, "reward": 0.5}\n{"step": 4, "rew'
    assert (aside / "step-00003.parquet").exists()


def test_a_metric_that_comes_later_gets_its_column_and_one_that_is_not_a_number_is_left_out_of_means() -> None:
    console = log()
    progress = Progress(2, console)
    progress.add(1, {"kl": math.nan, "seconds": 1.0})
    progress.add(2, {"kl": 0.5, "accuracy": 0.25, "seconds": 1.0})
    first, _, second, row = printed(console)
    assert "accuracy" not in first
    assert "accuracy" in second
    assert row.split()[:4] == ["2/2", "0.250", "0.500", "1.00"]


def test_numbers_that_are_not_finite_are_null_in_every_file(tmp_path: Path) -> None:
    run = RunDirectory.new(tmp_path, "x")
    run.add_metrics({"kl": math.nan})
    run.add_evaluations({"before": {"reward": math.nan, "success": 0.5}})
    assert json.loads((run.path / "metrics.jsonl").read_text()) == {"kl": None}
    evaluations = (run.path / "evaluations.json").read_text()
    assert json.loads(evaluations, parse_constant=pytest.fail) == {"before": {"reward": None, "success": 0.5}}


def test_names_with_markup_are_shown_as_they_are() -> None:
    console = log()
    parts = {"[/b]": 0.5, "[red]": 0.25}
    print_evaluations(console, {"before": Evaluation(4, 0.5, 0.2, 0.8, 0.5, parts, 0)})
    shown = "\n".join(printed(console))
    assert "[/b]" in shown
    assert "[red]" in shown

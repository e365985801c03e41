"""Stored episodes become training data that other programs read, and can be scored again."""

import json
import os
import shutil
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from llmgym import evals
from llmgym.agents import GRPO
from llmgym.cli import main
from llmgym.data.demonstrations import read_conversations
from llmgym.data.feedback import read_feedback
from llmgym.data.preferences import read_preferences
from llmgym.data.trajectories import read_trajectories, write_trajectories
from llmgym.evals.rescored import Again, Rescored
from llmgym.rollout.trajectory import Trajectory

SMALL = {"prompts_per_step": 6, "group_size": 4, "max_tokens": 128, "sample_every": 0, "eval_episodes": 0, "steps": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return GRPO(output_dir=tmp_path_factory.mktemp("runs"), **SMALL).train().path


@pytest.fixture(scope="module")
def episodes(run: Path) -> list[Trajectory]:
    found = read_trajectories(run / "trajectories" / "step-00001.parquet")
    assert {one.succeeded for one in found} == {True, False}
    return found


def exported(run: Path, form: str, path: Path, *words: str) -> Path:
    assert main(["export", f"{run}@1", "--format", form, "-o", str(path), *words]) == 0
    return path


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_conversations_are_those_that_fulfil_the_condition_up_to_the_last_reply(
    run: Path, episodes: list[Trajectory], tmp_path: Path, suffix: str
) -> None:
    path = exported(run, "sft", tmp_path / f"sft.{suffix}", "--where", "success and turns == 2")
    found = read_conversations(path)
    expected = [one for one in episodes if one.succeeded and len(one.replies) == 2]
    assert [[*one.prompt, *one.completion] for one in found] == [one.messages[:5] for one in expected]


def test_pairs_are_the_best_and_the_worst_of_a_task_and_part_where_they_differ(
    run: Path, episodes: list[Trajectory], tmp_path: Path
) -> None:
    found = read_preferences(exported(run, "dpo", tmp_path / "pairs.parquet"))
    groups = [episodes[start : start + 4] for start in range(0, 24, 4)]
    spread = [(min(scores), max(scores)) for group in groups if (scores := [one.score or 0.0 for one in group])]
    assert [(one.score_rejected, one.score_chosen) for one in found] == [one for one in spread if one[0] < one[1]]
    for pair in found:
        conversations = [
            [message.content for message in (*pair.prompt, *side)] for side in (pair.chosen, pair.rejected)
        ]
        stored = [[message.content for message in one.messages[:5]] for one in episodes]
        assert all(one in stored for one in conversations)
        assert pair.chosen[0] != pair.rejected[0]


def test_feedback_is_good_where_the_label_says_so(run: Path, episodes: list[Trajectory], tmp_path: Path) -> None:
    found = read_feedback(exported(run, "kto", tmp_path / "a.parquet"))
    assert [one.desirable for one in found] == [one.succeeded for one in episodes]
    found = read_feedback(exported(run, "kto", tmp_path / "b.jsonl", "--label", "json_ok == 1 and score > 0.5"))
    assert [one.desirable for one in found] == [one.parts["json_ok"] == 1 and one.score > 0.5 for one in episodes]  # type: ignore[operator]


def test_tasks_that_are_neither_too_easy_nor_too_hard_become_prompts(
    run: Path, episodes: list[Trajectory], tmp_path: Path
) -> None:
    path = exported(run, "prompts", tmp_path / "prompts.parquet", "--where", "0 < pass_rate < 1")
    rates = {one.seed: sum(o.succeeded for o in episodes if o.seed == one.seed) / 4 for one in episodes}
    rows = pq.read_table(path).to_pylist()
    assert {row["seed"]: row["pass_rate"] for row in rows} == {s: rate for s, rate in rates.items() if 0 < rate < 1}
    assert all(row["prompt"][-1]["role"] == "user" and row["samples"] == 4 for row in rows)


def test_a_full_context_counts_as_no_success_in_the_pass_rate_of_its_task(
    run: Path, episodes: list[Trajectory], tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    shutil.copytree(run, kept)
    full = replace(next(one for one in episodes if one.succeeded), score=None, ending="context", parts={})
    right = replace(full, score=1.0, ending="terminated", parts={"success": 1.0})
    write_trajectories(kept / "trajectories" / "step-00001.parquet", [right, full])
    rows = pq.read_table(exported(kept, "prompts", tmp_path / "p.parquet", "--where", "0 < pass_rate < 1")).to_pylist()
    assert [(row["samples"], row["pass_rate"], row["mean_score"]) for row in rows] == [(2, 0.5, 1.0)]


def test_lines_hold_all_that_is_known(run: Path, episodes: list[Trajectory], tmp_path: Path) -> None:
    rows = [json.loads(line) for line in exported(run, "jsonl", tmp_path / "all.jsonl").read_text().splitlines()]
    assert [row["score"] for row in rows] == [one.score for one in episodes]
    assert [row["parts"] for row in rows] == [one.parts for one in episodes]
    assert [len(row["messages"]) for row in rows] == [len(one.messages) for one in episodes]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "sft", "-o", "x.csv"], "ends with .parquet or .jsonl"),
        (["--format", "jsonl", "-o", "x.parquet"], "ends with .jsonl"),
        (["--format", "sft", "-o", "x.jsonl", "--where", "scor > 1"], "'scor' is none of"),
        (
            ["--format", "sft", "-o", "x.jsonl", "--where", "score > 5"],
            "none of its 24 finished episodes fulfils",
        ),
        (["--format", "dpo", "-o", "x.jsonl", "--where", "success"], "expected a task with two episodes"),
        (["--format", "sft", "-o", "x.jsonl", "--label", "score > 1"], "label: is about the good and the bad episodes"),
        (["--format", "sft", "-o", "x.d/x.jsonl"], "expected a file that can be written (No such file"),
    ],
)
def test_what_cannot_be_exported_is_told_and_leaves_no_file(
    run: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(tmp_path / word) if word.startswith("x.") else word for word in words]
    assert main(["export", f"{run}@1", *words]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def twice(run: Path, episodes: list[Trajectory], tmp_path: Path) -> Path:
    """A run whose second step played the tasks of the first one again, and did nothing right."""
    kept = tmp_path / "twice"
    shutil.copytree(run, kept)
    wrong = [replace(one, score=0.0, parts={**one.parts, "success": 0.0}) for one in episodes]
    write_trajectories(kept / "trajectories" / "step-00002.parquet", wrong)
    return kept


def test_a_run_without_a_step_means_those_of_all_its_steps(
    twice: Path, episodes: list[Trajectory], tmp_path: Path
) -> None:
    path = tmp_path / "all.jsonl"
    assert main(["export", str(twice), "--format", "jsonl", "-o", str(path)]) == 0
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted((row["step"], row["seed"]) for row in rows) == sorted(
        (step, one.seed) for step in (1, 2) for one in episodes
    )
    assert {row["pass_rate"] for row in rows if row["step"] == 2} == {0.0}
    assert main(["export", str(twice), "--format", "jsonl", "-o", str(path), "--where", "step < 2"]) == 0
    exported(twice, "jsonl", tmp_path / "first.jsonl")
    assert path.read_text() == (tmp_path / "first.jsonl").read_text()


def test_pairs_are_of_episodes_that_the_same_weights_played(twice: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    assert main(["export", str(twice), "--format", "dpo", "-o", str(path)]) == 0
    exported(twice, "dpo", tmp_path / "first.jsonl")
    assert path.read_text() == (tmp_path / "first.jsonl").read_text()


def test_a_task_that_two_steps_played_is_two_tasks_to_a_scorer(
    twice: Path, episodes: list[Trajectory], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(twice), "--scorer", "env", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["episodes"], found["tasks"]) == (48, 12)
    assert found["after"]["reward"] == pytest.approx(sum(one.score or 0.0 for one in episodes) / 24)
    assert all(one["task"].startswith("step 2, seed ") for one in found["largest"])
    assert sum(found["pairs"].values()) == 12 * 4 * 3 / 2


def test_the_episodes_that_are_exported_are_not_written_over(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = run / "trajectories" / "step-00001.parquet"
    before = own.read_bytes()
    assert main(["export", f"{run}@1", "--format", "sft", "-o", str(own)]) == 2
    assert "expected another file than one of those that are exported" in capsys.readouterr().err
    assert own.read_bytes() == before


def test_what_is_no_file_is_not_replaced_by_one(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert main(["export", f"{run}@1", "--format", "sft", "-o", str(tmp_path / "pipe.jsonl")]) == 2
    assert main(["report", str(run), "-o", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("there is something else than a file") == 2
    assert (tmp_path / "pipe.jsonl").is_fifo()


def test_the_number_of_rows_is_told(
    run: Path, episodes: list[Trajectory], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prompts.jsonl"
    words = ["export", f"{run}@1", "--format", "prompts", "-o", str(path)]
    assert main(words) == main([*words, "--where", f"seed == {episodes[0].seed}"]) == 0
    many, one = (line.removeprefix(str(path)) for line in capsys.readouterr().out.splitlines())
    assert many == ": 6 rows from 24 episodes."
    assert one == ": 1 row from 24 episodes, 20 left out by --where."


def scored(run: Path, capsys: pytest.CaptureFixture[str], scorer: str, code: int = 0) -> Any:
    assert main(["score", f"{run}@1", "--scorer", scorer, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_the_scorer_that_they_had_changes_no_score(
    run: Path, episodes: list[Trajectory], capsys: pytest.CaptureFixture[str]
) -> None:
    found = scored(run, capsys, "env")
    assert (found["episodes"], found["tasks"], found["unfinished"], found["changed"]) == (24, 6, 0, 0)
    assert found["after"]["reward"] == pytest.approx(found["before"]["reward"])
    assert found["before"]["reward"] == pytest.approx(sum(one.score or 0.0 for one in episodes) / 24)
    assert found["largest"] == []
    assert found["pairs"]["same_order"] + found["pairs"]["neither"] == 6 * 4 * 3 / 2


def test_another_scorer_reads_the_same_replies_and_what_it_changes_is_counted(
    run: Path, episodes: list[Trajectory], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rewards.py").write_text(
        "def brief(episode):\n    assert episode.task is not None\n"
        "    return {'letters': -float(sum(map(len, episode.actions)))}\n"
    )
    found = scored(run, capsys, f"{tmp_path / 'rewards.py'}:brief")
    letters = [-sum(len(one.content) for one in e.messages if one.role == "assistant") for e in episodes]
    assert found["after"]["reward"] == found["after"]["parts"]["letters"] == pytest.approx(sum(letters) / 24)
    pairs = [(i, j) for i in range(24) for j in range(i + 1, 24) if episodes[i].seed == episodes[j].seed]
    same = sum(((episodes[i].score or 0) - (episodes[j].score or 0)) * (letters[i] - letters[j]) > 0 for i, j in pairs)
    other = sum(((episodes[i].score or 0) - (episodes[j].score or 0)) * (letters[i] - letters[j]) < 0 for i, j in pairs)
    assert (found["pairs"]["same_order"], found["pairs"]["other_order"]) == (same, other)


def test_what_changed_most_is_named_by_its_place_among_the_samples_that_are_kept(
    run: Path, episodes: list[Trajectory], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept"
    shutil.copytree(run, kept)
    unfinished = replace(episodes[0], score=None, ending="context", parts={})
    write_trajectories(kept / "trajectories" / "step-00001.parquet", [unfinished, replace(episodes[1], score=9.0)])
    found = scored(kept, capsys, "env")
    assert (found["episodes"], found["unfinished"]) == (1, 1)
    assert [(one["sample"], one["before"]) for one in found["largest"]] == [(1, 9.0)]


def test_those_that_fell_and_those_that_rose_are_shown_the_furthest_first(run: Path, tmp_path: Path) -> None:
    stored = evals.stored(f"{run}@1")
    again = [
        Again(key, 0, one, replace(one, score=(one.score or 0.0) + change))
        for key, one, change in zip(
            stored.tasks, map(itemgetter(0), stored.tasks.values()), (2, 0, 3, -0.5, 1, -4), strict=True
        )
    ]
    largest = Rescored("name", again, 0, 0).plain(2)["largest"]
    assert [one["after"] - one["before"] for one in largest] == pytest.approx([-4, -0.5, 3, 2])
    assert len(Rescored("name", again[:3], 0, 0).plain(2)["largest"]) == 2


def test_a_scorer_that_fails_is_told_with_its_reason(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.py").write_text("def broken(episode):\n    return 1 / 0\n")
    broken = f"{tmp_path / 'broken.py'}:broken"
    found = scored(run, capsys, broken, code=1)
    assert found["after"]["reward"] is None
    assert found["after"]["unscored"] == 24
    assert "ZeroDivisionError" in found["after"]["reason"]
    assert main(["score", f"{run}@1", "--scorer", broken]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("llmgym score: none of 24 episodes has a score: ")
    assert "ZeroDivisionError" in printed.err

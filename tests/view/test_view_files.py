"""Files that grow, that are half written, or that somebody hostile wrote."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerFast

from llmgym.data.trajectories import SCHEMA, write_trajectories
from llmgym.errors import DataError
from llmgym.rollout.trajectory import Trajectory
from llmgym.types import Message
from llmgym.view import Answers, Run, open_runs
from tests.view.conftest import episode

RunOf = Callable[..., Path]


def opened(path: Path) -> tuple[Run, Answers]:
    (run,) = open_runs([path])
    run.refresh()
    return run, Answers([run])


def shard(run: Path, step: int) -> Path:
    return run / "trajectories" / f"step-{step:05d}.parquet"


def indexed(answers: Answers) -> list[tuple[int, int]]:
    return [(row["step"], row["index"]) for row in answers.answer("episodes", {"sort": "step"})["rows"]]


def test_a_run_is_followed_while_it_goes_on(run_of: RunOf) -> None:
    path = run_of({1: [episode(), episode("no", 0.0)]})
    run, answers = opened(path)
    changes = run.changes
    run.refresh()
    assert run.changes == changes, "nothing is new"
    write_trajectories(shard(path, 2), [episode("maybe", None)])
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "reward": 0.75}\n{"step": 3, "rew')
    run.refresh()
    assert run.changes > changes
    assert indexed(answers) == [(1, 0), (1, 1), (2, 0)]
    assert answers.answer("metrics", {})["columns"]["reward"] == [0.5, 0.75]
    with (path / "metrics.jsonl").open("a") as file:
        file.write('ard": 1.0, "kl": NaN}\n')
    run.refresh()
    assert answers.answer("metrics", {"from": "2"})["columns"] == {"step": [3], "reward": [1.0], "kl": [None]}
    assert not run.faults


def test_a_run_that_has_just_begun_is_shown(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("env: AIOpsTriage\n")
    _, answers = opened(tmp_path)
    assert answers.answer("runs", {})["runs"][0]["steps"] == 0
    assert answers.answer("episodes", {})["rows"] == []
    assert answers.answer("metrics", {})["columns"] == {}


def test_a_run_that_went_back_is_read_again(run_of: RunOf) -> None:
    path = run_of({1: [episode()], 2: [episode()], 3: [episode()]})
    run, answers = opened(path)
    edition = answers.answer("metrics", {})["edition"]
    shard(path, 3).unlink()
    write_trajectories(shard(path, 2), [episode("other", 0.0)])
    (path / "new").write_text('{"step": 1, "reward": 0.25}\n')
    (path / "new").replace(path / "metrics.jsonl")
    run.refresh()
    assert indexed(answers) == [(1, 0), (2, 0)]
    assert answers.answer("replies", {"of": "2.0"})["replies"] == ["other"]
    again = answers.answer("metrics", {"from": "3", "edition": str(edition)})
    assert (again["from"], again["columns"]["reward"]) == (0, [0.25])


def test_a_half_written_shard_is_not_there_yet(run_of: RunOf) -> None:
    path = run_of({1: [episode()]})
    whole = shard(path, 1).read_bytes()
    shard(path, 2).with_name(f".{shard(path, 2).name}.partial").write_bytes(whole[:100])
    run, answers = opened(path)
    assert (indexed(answers), run.faults) == ([(1, 0)], [])


def test_a_broken_shard_is_named_and_hides_no_other(run_of: RunOf) -> None:
    path = run_of({1: [episode()], 2: [episode()], 3: [episode()]})
    whole = shard(path, 2).read_bytes()
    shard(path, 2).write_bytes(whole[: len(whole) // 2])
    run, answers = opened(path)
    assert indexed(answers) == [(1, 0), (3, 0)]
    (fault,) = answers.answer("runs", {})["runs"][0]["faults"]
    assert "step-00002.parquet" in fault
    shard(path, 2).write_bytes(whole)
    run.refresh()
    assert indexed(answers) == [(1, 0), (2, 0), (3, 0)]
    assert not run.faults


def test_a_shard_that_breaks_later_costs_its_own_pages(run_of: RunOf) -> None:
    path = run_of({1: [episode()], 2: [episode()]})
    _, answers = opened(path)
    shard(path, 1).write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        answers.answer("episode", {"step": "1", "index": "0"})
    write_trajectories(shard(path, 1), [])
    with pytest.raises(DataError, match="expected row 0 of a file of trajectories, got one of 0 rows"):
        answers.answer("episode", {"step": "1", "index": "0"})
    assert answers.answer("episode", {"step": "2", "index": "0"})["score"] == 1.0


def hostile(run: Path, **columns: pa.Array) -> None:
    """Write a shard with other columns than it should have."""
    write_trajectories(shard(run, 1), [episode()])
    table = pq.read_table(shard(run, 1))
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table.replace_schema_metadata(SCHEMA.metadata), shard(run, 1))


@pytest.mark.parametrize(
    "columns",
    [
        {"seed": pa.array(["seven"])},
        {"score": pa.array([[1.0]])},
        {"parts": pa.array(["none"])},
        {"replies": pa.array([[1, 2]])},
        {"replies": pa.array([3])},
        {"group": pa.array([2.5])},
        {"messages": pa.array([["hello"]])},
        {"messages": pa.array([5])},
    ],
)
def test_columns_of_other_types_are_a_fault_and_no_crash(run_of: RunOf, columns: dict[str, pa.Array]) -> None:
    path = run_of({2: [episode()]})
    hostile(path, **columns)
    run, answers = opened(path)
    assert indexed(answers) == [(2, 0)]
    (column,) = columns
    assert f"Column {column!r}: expected " in run.faults[0]


@pytest.mark.parametrize(
    "columns",
    [
        {"mask": pa.array([[True]])},
        {"log_probs": pa.array([[0.5] * 4], pa.list_(pa.float32()))},
        {"tokens": pa.array([None], pa.list_(pa.int32()))},
    ],
)
def test_an_episode_that_is_none_is_a_sentence_on_its_page(run_of: RunOf, columns: dict[str, pa.Array]) -> None:
    path = run_of({2: [episode()]})
    hostile(path, **columns)
    _, answers = opened(path)
    with pytest.raises(DataError, match="expected"):
        answers.answer("episode", {"step": "1", "index": "0"})


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("metrics.jsonl", "[1, 2]\n", "line 1: expected a JSON object with a step"),
        ("metrics.jsonl", "[" * 100_000 + "\n", "line 1: expected a JSON object with a step"),
        ("metrics.jsonl", '{"step": "x"}\n', "line 1: expected a JSON object with a step"),
        ("evaluations.json", "{", "expected JSON"),
        ("evaluations.json", "[]", "expected a JSON object, got list"),
        ("evaluations.json", "[" * 100_000, "expected JSON"),
        ("environment.json", "\xff", "expected a JSON object"),
        ("config.yaml", "a: [", "Cannot read the configuration"),
        ("config.yaml", "- 1", "has to hold options"),
        ("config.yaml", "!!python/object/apply:os.system ['true']", "Cannot read the configuration"),
    ],
)
def test_what_cannot_be_read_is_told_and_the_rest_is_shown(run_of: RunOf, name: str, text: str, fault: str) -> None:
    path = run_of({1: [episode()]})
    (path / name).write_text(text if name != "environment.json" else '"\xff"', encoding="utf-8")
    _, answers = opened(path)
    (run,) = answers.answer("runs", {})["runs"]
    assert any(fault in one for one in run["faults"])
    assert answers.answer("episode", {"step": "1", "index": "0"})["score"] == 1.0


@pytest.mark.parametrize("name", ["config.yaml", "environment.json", "trajectories/step-00002.parquet"])
def test_a_pipe_is_told_and_not_waited_for(run_of: RunOf, name: str) -> None:
    path = run_of({1: [episode()]})
    (path / name).unlink(missing_ok=True)
    os.mkfifo(path / name)
    _, answers = opened(path)
    (run,) = answers.answer("runs", {})["runs"]
    assert any("got a pipe" in one for one in run["faults"])


def test_evaluations_of_odd_shapes_are_left_out(run_of: RunOf) -> None:
    path = run_of({1: [episode()]})
    odd = {
        "a": 1,
        "b": {"step": "x"},
        "c": {"step": 1, "success": True},
        "d": {"step": 2, "success": 0.5, "measure": []},
    }
    (path / "evaluations.json").write_text(json.dumps(odd))
    _, answers = opened(path)
    told = answers.answer("runs", {})["runs"][0]["evaluations"]
    assert [one["label"] for one in told if one["success"] == 0.5] == ["d"]


def test_text_of_others_moves_nothing_on_a_page(run_of: RunOf) -> None:
    one = episode("\x1b[2J\u202eevil\u200b <script>alert(1)</script>\x00", None)
    one.score_error = "\u202egone"
    one.parts = {"\x1b]0;title\x07": 1.0}
    one.messages.insert(0, Message("tool", "\x9b31m", name="\u2066tool"))
    _, answers = opened(run_of({1: [one]}))
    page = answers.answer("episode", {"step": "1", "index": "0"})
    told = [page, answers.answer("group", {"step": "1", "index": "0"}), answers.answer("runs", {})]
    told += [answers.answer("replies", {"of": "1.0"}), answers.answer("episodes", {})]
    texts = strings(json.loads(json.dumps(told)))
    assert all(letter.isprintable() or letter in "\n\t" for text in texts for letter in text)
    assert r"\x1b[2J\u202eevil\u200b <script>alert(1)</script>\x00" in texts


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for one in inner for text in strings(one)]


def test_an_episode_without_a_score_stays_without_one(run_of: RunOf) -> None:
    lost = episode(score=None)
    lost.ending, lost.score_error, lost.parts = "env_error", "the environment failed", {}
    _, answers = opened(run_of({1: [lost, episode(), episode("no", 0.0)]}))
    first = answers.answer("episodes", {"sort": "step"})
    assert [row["score"] for row in first["rows"]] == [None, 1.0, 0.0]
    assert [row["success"] for row in first["rows"]] == [None, 1.0, 0.0]
    assert (first["summary"]["scored"], first["summary"]["judged"], first["summary"]["score"]) == (2, 2, 0.5)
    assert [row["index"] for row in answers.answer("episodes", {"outcome": "failure"})["rows"]] == [2]
    assert [row["index"] for row in answers.answer("episodes", {"outcome": "unknown"})["rows"]] == [0]
    assert [row["index"] for row in answers.answer("episodes", {"sort": "-score"})["rows"]] == [1, 2, 0]
    advantages = [one["advantage"] for one in answers.answer("group", {"step": "1", "index": "0"})["episodes"]]
    assert advantages == pytest.approx([0.0, np.sqrt(0.5), -np.sqrt(0.5)])


def test_written_demonstrations_have_no_log_probabilities(run_of: RunOf) -> None:
    one = episode()
    one.log_probs = [0.0, 0.0, 0.0, float("nan"), float("nan")]
    _, answers = opened(run_of({1: [one]}))
    page = answers.answer("episode", {"step": "1", "index": "0"})
    assert page["colours"][0]["values"] is None
    assert "Nobody sampled" in page["colours"][0]["note"]


def test_shards_of_older_versions_are_shown(run_of: RunOf) -> None:
    path = run_of({1: [episode()]})
    table = pq.read_table(shard(path, 1)).drop_columns(["row_starts", "score_error", "score_kind", "data_row", "seat"])
    label = json.dumps({"kind": "trajectories", "version": 1})
    pq.write_table(table.replace_schema_metadata({"llmgym": label}), shard(path, 1))
    _, answers = opened(path)
    page = answers.answer("episode", {"step": "1", "index": "0"})
    assert (page["task"], page["seat"], page["row_starts"]) == ("seed 7", 0, [0])


def test_an_evaluation_is_shown_as_a_run_is(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"model": "tiny"}')
    for first in (0, 2):
        those = [episode(f"{first + place}", seed=first, group=first) for place in range(2)]
        write_trajectories(tmp_path / f"episodes-{first:07d}.parquet", those)
    _, answers = opened(tmp_path)
    assert indexed(answers) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert answers.answer("replies", {"of": "0.3,0.0"})["replies"] == ["3", "0"]
    assert [one["index"] for one in answers.answer("group", {"step": "0", "index": "2"})["episodes"]] == [2, 3]


def test_tasks_are_told_apart_by_their_row_and_seat(run_of: RunOf) -> None:
    def played(score: float) -> list[Trajectory]:
        found = [episode(score=score, group=group) for group in range(3)]
        found[1].data_row, found[2].seat = 5, 1
        return found

    first, second = run_of({1: played(1.0)}, "first"), run_of({1: played(0.0)}, "second")
    runs = open_runs([first, second])
    for run in runs:
        run.refresh()
    found = Answers(runs).answer("tasks", {"run": "first", "other": "second"})
    assert sorted(row["task"] for row in found["rows"]) == ["row 5", "seed 7", "seed 7"]
    assert [row["difference"] for row in found["rows"]] == [-1.0, -1.0, -1.0]


def test_a_search_through_many_files_says_how_far_it_has_come(run_of: RunOf, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: dict[int, Sequence[Trajectory]] = {step: [episode(f"word{step}")] for step in range(1, 9)}
    path = run_of(steps)
    _, answers = opened(path)
    monkeypatch.setattr("llmgym.view.filters._SEARCH", 0.0)
    query, start, found, asked = {"text": "WORD3"}, 0, [], 0
    while start < 8:
        page = answers.answer("episodes", {**query, "from": str(start)})
        assert page["to"] > start
        found += [row["step"] for row in page["rows"]]
        start, asked = page["to"], asked + 1
    assert (found, asked) == ([3], 8)


def test_characters_of_several_tokens_are_whole(
    run_of: RunOf, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    said = "naïve 日本語 🙂 ok"
    one = episode(said)
    one.tokens = [0, 1, 2, *tokenizer.encode(said), 2, 999_999, *tokenizer.encode("é")[:1], *tokenizer.encode("é")]
    one.mask, one.log_probs = [True] * len(one.tokens), [-1.0] * len(one.tokens)
    path = run_of({1: [one]})
    tokenizer.save_pretrained(tmp_path / "model")
    (path / "config.yaml").write_text(f"model: {tmp_path / 'model'}\n")
    _, answers = opened(path)
    pieces = answers.answer("episode", {"step": "1", "index": "0"})["pieces"]
    assert len(pieces) == len(one.tokens)
    assert "".join(pieces).startswith(f"<|endoftext|><|im_start|><|im_end|>{said}<|im_end|><999999>")
    assert "".join(pieces).endswith("é")


def test_a_run_may_vanish(run_of: RunOf) -> None:
    path = run_of({1: [episode()]})
    run, answers = opened(path)
    shutil.rmtree(path)
    run.refresh()
    assert indexed(answers) == []

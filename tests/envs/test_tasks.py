"""The rows of a data set as tasks: what is read, who shares it, and what is refused."""

import copy
import gc
import json
import os
import re
import weakref
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import llmgym
from llmgym.data import tasks
from llmgym.data.tasks import shared_table
from llmgym.errors import ConfigError, DataError

ROWS = [{"prompt": f'What is "{n}" + {n},\nplease?', "answer": str(2 * n), "level": f"{n % 3}"} for n in range(7)]
VERL = {
    "data_source": "openai/gsm8k",
    "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 3?"}],
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "5"},
    "extra_info": {"split": "train", "index": 0},
}


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(pa.Table.from_pylist(rows), path)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def make(rows: Any, **options: Any) -> Any:
    return gymnasium.make("llmgym/qa-v0", rows=rows, **options).unwrapped


def played(env: Any) -> list[tuple[str, Any]]:
    return [(env.reset(options={"row": row})[0], env.episode.task) for row in range(len(env.table))]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl", "rows.csv"])
def test_every_kind_of_file_gives_the_rows_of_a_list(name: str, tmp_path: Path) -> None:
    assert played(make(written(tmp_path / name, ROWS))) == played(make(ROWS))
    assert played(make(str(tmp_path / name))) == [(row["prompt"], row) for row in ROWS]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
def test_verls_columns_are_read_as_they_are(name: str, tmp_path: Path) -> None:
    env = make(written(tmp_path / name, [VERL]))
    assert env.reset(seed=0)[0] == "2 + 3?"
    assert env.episode.system_prompt == "Be brief."
    assert env.episode.task == {**VERL, "answer": "5"}


def test_other_columns_can_hold_the_prompt_and_the_answer() -> None:
    env = make([{"question": "2 + 3?", "solution": "5"}], prompt_column="question", answer_column="solution")
    assert env.reset(seed=0)[0] == "2 + 3?"
    assert (env.episode.task["answer"], env.episode.task["question"]) == ("5", "2 + 3?")


def test_rows_are_whatever_has_a_length_and_items_by_number() -> None:
    class Squares:
        """As a `datasets.Dataset` is, no sequence in Python's sense."""

        def __len__(self) -> int:
            return 3

        def __getitem__(self, row: int) -> dict[str, Any]:
            return {"prompt": f"{row} squared?", "answer": row**2}

    env = make(Squares(), scorer="exact")
    assert env.reset(options={"row": 2})[0] == "2 squared?"
    assert env.step("4")[1:3] == (1.0, True)


def test_without_options_the_row_is_a_function_of_the_seed_and_all_are_drawn() -> None:
    one, other = make(ROWS), make(ROWS)
    drawn = [one.reset(seed=seed)[0] for seed in range(100)]
    assert drawn == [other.reset(seed=seed)[0] for seed in range(100)]
    assert set(drawn) == {row["prompt"] for row in ROWS}


def test_an_episode_is_one_reply_and_the_scorer_sees_every_column() -> None:
    seen = []

    def scorer(episode: llmgym.Episode) -> float:
        seen.append(episode.task)
        return float(episode.actions == [episode.task["answer"]])

    env = make(ROWS, scorer=scorer)
    env.reset(options={"row": 3})
    assert env.step("6")[1:4] == (1.0, True, False)
    assert seen == [ROWS[3]]
    assert env.turn_limit == 1


def test_a_subclass_answers_and_scores() -> None:
    class Twice(llmgym.TaskEnv):
        max_turns = 2

        def respond(self, action: str) -> str | None:
            return None if action == self.episode.task["answer"] else "No. Once more?"

        def score(self, episode: llmgym.Episode) -> float:
            return float(episode.actions[-1] == episode.task["answer"]) / len(episode.turns)

    env = Twice(ROWS)
    env.reset(options={"row": 1})
    assert env.step("1")[:4] == ("No. Once more?", 0.0, False, False)
    assert env.step("2")[1:4] == (0.5, True, False)
    llmgym.check_env(env, seeds=5)


def test_the_environment_of_the_docs_plays(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "environments" / "qa.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n([^`]*class Retry[^`]*)```", page)
    monkeypatch.setattr("llmgym.registry._IDS", list(llmgym.registered_envs()))
    exec(block, {})
    try:
        env = gymnasium.make("Retry-v0", rows=ROWS)
        env.reset(seed=0)
        (right,) = (row["answer"] for row in ROWS if row["prompt"] == env.unwrapped.episode.task["prompt"])  # type: ignore[attr-defined]
        assert env.step("I do not know")[:3] == ("No. Try again.", 0.0, False)
        assert env.step(right)[1:3] == (0.5, True)
    finally:
        del gymnasium.registry["Retry-v0"]


def test_a_scorer_that_changes_its_row_changes_no_later_episode() -> None:
    rows = [{"prompt": "2 + 3?", "answer": "5", "notes": ["a"]}]
    env = make(rows, scorer=lambda episode: float(len(episode.task["notes"].append("b") or episode.task.pop("answer"))))
    for _ in range(2):
        env.reset(seed=0)
        assert env.step("5")[1] == 1.0
    assert rows == [{"prompt": "2 + 3?", "answer": "5", "notes": ["a"]}]


# One table for all.


def test_a_file_is_read_once_for_all_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, reads = written(tmp_path / "rows.parquet", ROWS), []
    read = tasks.read_whole
    monkeypatch.setattr(tasks, "read_whole", lambda path: reads.append(path) or read(path))
    envs = llmgym.TextVectorEnv([lambda: gymnasium.make("llmgym/qa-v0", rows=str(path))] * 50)
    assert len(reads) == 1
    assert len({id(env.unwrapped.table) for env in envs.envs}) == 1
    listed = llmgym.TextVectorEnv([lambda: gymnasium.make("llmgym/qa-v0", rows=ROWS)] * 50)
    assert len({id(env.unwrapped.table) for env in listed.envs}) == 1


def test_a_file_that_changed_is_read_again_and_other_columns_are_another_table(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", ROWS)
    first = shared_table(path)
    assert shared_table(path) is first
    assert shared_table(path, answer_column="level").task(2)["answer"] == "2"
    written(path, ROWS[:2])
    os.utime(path, ns=(1, 1))
    assert (len(shared_table(path)), len(first)) == (2, 7)


def test_a_table_that_nobody_plays_is_let_go(tmp_path: Path) -> None:
    env = make(str(written(tmp_path / "rows.parquet", ROWS)))
    table = weakref.ref(env.table)
    del env
    gc.collect()
    assert table() is None


def test_a_copy_of_a_table_is_the_table() -> None:
    table = llmgym.TaskTable(ROWS)
    assert copy.deepcopy({"rows": table})["rows"] is table  # Gymnasium copies what environments are made with
    assert make(table).table is table


def test_part_of_a_table_keeps_the_numbers_of_its_rows() -> None:
    table = llmgym.TaskTable(ROWS)
    part = table.only([5, 2])
    assert part.rows.tolist() == [2, 5]
    assert part.task(5) == ROWS[5]
    with pytest.raises(DataError, match="the number of one of 2 rows, got 3"):
        part.task(3)
    assert table.without_prompts_of(part).rows.tolist() == [0, 1, 3, 4, 6]
    assert table.without_prompts_of(table) is None
    assert {make(part).reset(seed=seed)[0] for seed in range(50)} == {ROWS[2]["prompt"], ROWS[5]["prompt"]}


# What is refused.

USER = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": "5"}, "row 1: no column 'prompt'.*Columns: answer.*prompt_column"),
        ({"promt": "Hi"}, "Did you mean 'promt'"),
        ({"prompt": None}, "row 1: expected a string or messages, got nothing"),
        ({"prompt": ""}, "row 1: expected a prompt, got blank text"),
        ({"prompt": " \n"}, "row 1: expected a prompt, got blank text"),
        ({"prompt": float("nan")}, "row 1: expected a string or messages, got float: nan"),
        ({"prompt": 7}, "row 1: expected a string or messages, got int: 7"),
        ({"prompt": {"role": "user", "content": "Hi"}}, "row 1: expected a string or messages, got dict"),
        ({"prompt": []}, "row 1: expected a string or messages, got none"),
        ({"prompt": ["Hi"]}, "row 1: expected a role of .*, got 'Hi'"),
        ({"prompt": [{"content": "Hi"}]}, "row 1: expected a role of .*, got None"),
        ({"prompt": [{"role": "human", "content": "Hi"}]}, "row 1: expected a role of .*, got 'human'"),
        ({"prompt": [{"role": "user", "content": None}]}, "row 1: a message of role 'user' has no content"),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, "row 1: expected a string as content"),
        ({"prompt": [USER, {"role": "assistant", "content": "Yes?"}]}, "row 1: expected messages of which the last"),
        ({"prompt": [USER, {"role": "system", "content": "x"}, USER]}, "row 1: expected a system message only at"),
        ({"prompt": [{"role": "system", "content": "x"}]}, "row 1: expected messages of which the last is the user's"),
        ("prompt", "row 1: expected a mapping, got str"),
    ],
)
def test_a_row_that_is_no_task_is_refused_with_its_number_or_left_out_and_counted(row: Any, message: str) -> None:
    rows = [{"prompt": "first"}, row, {"prompt": "last"}]
    with pytest.raises(DataError, match=message):
        make(rows)
    env = make(rows, skip_bad_rows=True)
    assert env.table.rows.tolist() == [0, 2]
    assert len(env.table.skipped) == 1
    assert {env.reset(seed=seed)[0] for seed in range(20)} == {"first", "last"}
    with pytest.raises(DataError, match="got 1"):
        env.reset(options={"row": 1})


def raw(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", b"", "cannot be read as JSON lines"),
        ("empty.csv", b"", "expected rows, got a table without rows"),
        ("empty.parquet", b"", "cannot be read as Parquet"),
        ("header.csv", b"prompt,answer\n", "expected rows, got a table without rows"),
        ("ragged.csv", b"prompt,answer\na,b,c\n", "expected 2 cells, as the header has, got 3"),
        ("list.jsonl", b"[1, 2]\n", "cannot be read as JSON lines"),
        ("text.parquet", b"prompt\nHi\n", "cannot be read as Parquet"),
        ("blank.csv", b"prompt,answer\n,5\n", "blank.csv', column 'prompt', row 0: expected a prompt, got blank text"),
        ("mixed.jsonl", b'{"prompt": "a"}\n{"prompt": ["b"]}\n', "row 1: expected a role of"),
        ("numbers.jsonl", b'{"prompt": 1}\n', "row 0: expected a string or messages, got int"),
        ("bytes.jsonl", b'{"prompt": "\xff"}\n', "expected text in UTF-8"),
        ("bytes.csv", b"prompt,answer\n\xff,5\n", "expected text in UTF-8"),
        ("question.csv", b"question,answer\na,b\n", "no column 'prompt'"),
    ],
)
def test_a_hostile_file_is_refused_by_name(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = raw(tmp_path / name, content)
    with pytest.raises(DataError, match=message) as error:
        make(str(path))
    assert name in str(error.value)


def test_a_number_that_is_missing_in_parquet_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.parquet", [{"prompt": float("nan")}, {"prompt": 1.0}])
    with pytest.raises(DataError, match="row 0: expected a string or messages, got float: nan"):
        make(str(path))


def test_rows_that_are_not_read_by_number_are_refused() -> None:
    columns: dict[Any, list[str]] = {"prompt": ["a", "b"]}
    frame = type("DataFrame", (), {"__len__": lambda self: 2, "__getitem__": lambda self, name: columns[name]})
    with pytest.raises(DataError, match=r"row 0 cannot be read by its number \(KeyError: 0\).*to_dict\('records'\)"):
        make(frame())


def test_rows_as_pandas_reads_them_are_read() -> None:
    row = {"prompt": np.array([USER], dtype=object), "answer": np.int64(5)}
    env = make([row], scorer="exact")
    assert env.reset(seed=0)[0] == "Hi"
    assert env.step("5")[1] == 1.0


def test_gymnasiums_own_vector_of_them_plays() -> None:
    envs = gymnasium.make_vec("llmgym/qa-v0", num_envs=3, rows=ROWS, scorer="exact")
    asked, _ = envs.reset(seed=0)
    right = {row["prompt"]: row["answer"] for row in ROWS}
    _, rewards, over, _, infos = envs.step([right[one] for one in asked])
    assert (rewards.tolist(), over.tolist()) == ([1.0] * 3, [True] * 3)
    assert len(infos["final_obs"]) == 3


@pytest.mark.parametrize("rows", [7, {"prompt": "Hi"}, b"rows.parquet", iter(ROWS)])
def test_what_is_no_rows_is_refused(rows: Any) -> None:
    with pytest.raises(DataError, match="rows: expected a path, a list of mappings"):
        llmgym.TaskEnv(rows)


def test_no_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="TaskEnv expects rows, got none: give a file with --data"):
        llmgym.TaskEnv()
    with pytest.raises(DataError, match="expected a row that can be played, got none"):
        llmgym.TaskEnv([])
    with pytest.raises(DataError, match="no such file"):
        llmgym.TaskEnv("nowhere.parquet")


@pytest.mark.parametrize("row", [-1, 7, 1.5, "1", True, np.int64(9)])
def test_a_row_that_is_not_there_is_refused(row: Any) -> None:
    with pytest.raises(DataError, match="the number of one of 7 rows"):
        make(ROWS).reset(options={"row": row})


def test_dates_in_json_lines_stay_text(tmp_path: Path) -> None:
    row = {
        "prompt": "When?",
        "answer": "2026-11-28",
        "extra_info": {"at": "2026-11-28 10:00:00", "all": ["2026-01-01"]},
    }
    assert make(written(tmp_path / "rows.jsonl", [row])).table.task(0) == row


def test_csv_is_text_as_it_is_in_the_file(tmp_path: Path) -> None:
    path = raw(tmp_path / "rows.csv", b"prompt,answer,empty\nAgent?,007,\n12,NaN,true\n")
    table = make(str(path)).table
    assert [table.task(row) for row in (0, 1)] == [
        {"prompt": "Agent?", "answer": "007", "empty": ""},
        {"prompt": "12", "answer": "NaN", "empty": "true"},
    ]

"""JSON lines are read as Parquet is, row for row."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from llmgym.data.demonstrations import read_conversations
from llmgym.data.feedback import read_feedback
from llmgym.data.preferences import generate_preferences, read_preferences, write_preferences
from llmgym.errors import DataError


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson"])
def test_rows_are_those_of_the_same_table_in_parquet(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "pairs.parquet"
    write_preferences(path, generate_preferences("AIOpsTriage", 20))
    rows = pq.read_table(path).to_pylist()
    assert read_preferences(lines(tmp_path / f"pairs.{suffix}", *rows)) == read_preferences(path)


def test_strings_messages_and_labels_are_read(tmp_path: Path) -> None:
    shown = {"messages": [{"role": "user", "content": "日志?"}, {"role": "assistant", "content": "🙂"}]}
    (one,) = read_conversations(lines(tmp_path / "shown.jsonl", shown))
    assert (one.prompt[-1].content, one.completion[0].content) == ("日志?", "🙂")
    rows = [{"prompt": "a", "completion": "b", "label": good, "more": 1} for good in (True, False)]
    assert [one.desirable for one in read_feedback(lines(tmp_path / "marked.jsonl", *rows))] == [True, False]


def test_a_line_of_megabytes_is_read(tmp_path: Path) -> None:
    (one,) = read_conversations(lines(tmp_path / "long.jsonl", {"prompt": "x" * 5_000_000, "completion": "y"}))
    assert len(one.prompt[0].content) == 5_000_000


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "cannot be read as JSON lines: expected an object on a line, got none"),
        (b'{"prompt": "a", "completion"', r"Row 0 \(line 1\) cannot be read as JSON lines: "),
        (b"[1, 2]\n", r"Row 0 \(line 1\) cannot be read as JSON lines: expected one object, got list"),
        (
            b'{"prompt": "a", "completion": "b"}\n{"prompt": ["c"], "completion": "d"}\n',
            "'prompt', row 1: expected a role",
        ),
        (b'{"prompt": "a", "completion": "b"}\n{"prompt": "c"}\n', "'completion', row 1: expected a string"),
        (b'{"prompt": "a", "answer": "b"}\n', "has no column 'completion'"),
        (b'{"prompt": "a", "completion": null}\n{"prompt": "a", "completion": "b"}\n', "row 0: expected a string"),
        (b'{"prompt": "a", "completion": "\xff"}\n', "Row 0 .*: expected text in UTF-8"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=expected) as error:
        read_conversations(path)
    assert str(path) in str(error.value)


def test_json_lines_with_another_suffix_are_taken_for_parquet(tmp_path: Path) -> None:
    path = lines(tmp_path / "pairs.json", {"prompt": "a"})
    with pytest.raises(DataError, match=r"as Parquet, as any file that does not end in \.jsonl, \.ndjson or \.csv"):
        read_conversations(path)

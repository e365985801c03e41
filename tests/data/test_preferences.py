"""Preference files: what is written is read, what others wrote too, and what is wrong is named."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmgym.data.preferences import Preference, read_preferences, write_preferences
from llmgym.errors import DataError
from llmgym.types import Message

PROMPT = (Message("system", "Triage."), Message("user", "日志\n"), Message("assistant", "[M1]"), Message("user", "?"))


def pairs() -> list[Preference]:
    several = (Message("assistant", "a"), Message("user", "b"), Message("assistant", "c"))
    return [
        Preference(PROMPT, (Message("assistant", "é"),), (Message("assistant", ""),), 1.0, 0.25, 2.0),
        Preference(PROMPT[:2], several, several[:1], 0.5),
    ]


def table(**columns: Any) -> dict[str, Any]:
    return {"prompt": ["p"], "chosen": ["c"], "rejected": ["r"], **columns}


def written(path: Path, columns: dict[str, Any], **metadata: bytes) -> Path:
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    return path


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    write_preferences(path, pairs())
    assert read_preferences(path) == pairs()
    assert list(tmp_path.iterdir()) == [path]


def test_a_column_of_numbers_that_no_pair_has_is_not_written(tmp_path: Path) -> None:
    write_preferences(tmp_path / "pairs.parquet", [Preference(PROMPT, PROMPT[2:3], PROMPT[2:3])])
    assert pq.read_schema(tmp_path / "pairs.parquet").names == ["prompt", "chosen", "rejected"]


def test_plain_strings_of_another_program_are_a_question_and_two_replies(tmp_path: Path) -> None:
    path = written(tmp_path / "x.parquet", table(score_chosen=[1], index=[7]))
    (pair,) = read_preferences(path)
    assert pair == Preference(
        (Message("user", "p"),), (Message("assistant", "c"),), (Message("assistant", "r"),), score_chosen=1.0
    )


def test_one_file_may_hold_conversations_and_strings(tmp_path: Path) -> None:
    columns = table(prompt=[[{"content": "p", "role": "user", "name": None}]])
    (pair,) = read_preferences(written(tmp_path / "x.parquet", columns))
    assert pair.prompt == (Message("user", "p"),)
    assert pair.rejected == (Message("assistant", "r"),)


def said(*roles: str) -> list[list[dict[str, str]]]:
    return [[{"role": role, "content": "x"} for role in roles]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"prompt": ["p"], "choosen": ["c"], "rejected": ["r"]}, r"no column 'chosen'\. Did you mean 'choosen'"),
        ({"text": ["p"]}, r"no column 'prompt'.* Expected prompt, chosen, rejected, got text"),
        (table(prompt=[1]), r"'prompt', row 0: expected a string or messages, got int: 1"),
        (table(chosen=[["c"]]), "'chosen', row 0: expected a role of .*, got 'c'"),
        (table(chosen=pa.array([None], pa.string())), r"'chosen', row 0: expected a string or messages, got nothing"),
        (
            table(prompt=said("user", "robot")),
            "'prompt', row 0: expected a role of .*, tool, got 'robot'",
        ),
        (table(prompt=[[{"role": "user", "content": None}] + said("user")[0]]), "role 'user' has no content"),
        (
            table(prompt=said("user", "assistant")),
            "'prompt', row 0: .* or a tool's, got user, assistant",
        ),
        (table(chosen=said("user", "assistant")), "'chosen', row 0: .* assistant first and last, got user, assistant"),
        (table(rejected=said("assistant", "user")), "'rejected', row 0: .* got assistant, user"),
        (table(score_chosen=["1"]), "'score_chosen', row 0: expected a finite number or null, got '1'"),
        (table(margin=[True]), "'margin', row 0: expected a finite number or null, got True"),
        (table(margin=[float("nan")]), "'margin', row 0: expected a finite number or null, got nan"),
        ({name: pa.array([], pa.string()) for name in table()}, "a table without rows"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_preferences(written(tmp_path / "x.parquet", columns))


@pytest.mark.parametrize("label", [b'{"kind": "preferences", "version": 9}', b'{"kind": "trajectories", "version": 1}'])
def test_a_later_version_and_another_kind_are_refused(tmp_path: Path, label: bytes) -> None:
    with pytest.raises(DataError, match="expected preferences of version 2 or earlier"):
        read_preferences(written(tmp_path / "x.parquet", table(), llmgym=label))


def test_a_file_that_is_missing_or_damaged_or_not_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    with pytest.raises(DataError, match="no such file"):
        read_preferences(path)
    path.write_text("prompt,chosen,rejected")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_preferences(path)
    write_preferences(path, pairs())
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        read_preferences(path)


def test_text_that_is_not_utf_8_is_named_or_skipped(tmp_path: Path) -> None:
    bad = pa.array([b"fine", b"caf\xe9"], pa.binary()).view(pa.string())
    columns = {"prompt": bad, "chosen": ["a", "b"], "rejected": ["c", "d"]}
    path = written(tmp_path / "x.parquet", columns)
    with pytest.raises(DataError, match="'prompt', row 1: expected text in UTF-8"):
        read_preferences(path)
    skipped: list[str] = []
    assert [pair.prompt[0].content for pair in read_preferences(path, skipped)] == ["fine"]
    assert len(skipped) == 1

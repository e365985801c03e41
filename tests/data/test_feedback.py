"""Answers with a label: TRL's unpaired columns, or pairs taken apart."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmgym.data.feedback import Feedback, read_feedback
from llmgym.errors import DataError
from llmgym.types import Message


def file_of(tmp_path: Path, columns: dict[str, list[Any]]) -> Path:
    pq.write_table(pa.table(columns), tmp_path / "data.parquet")
    return tmp_path / "data.parquet"


def test_unpaired_answers_are_read_with_their_labels(tmp_path: Path) -> None:
    columns = {"prompt": ["2 + 2?", "3 + 3?"], "completion": ["4", "7"], "label": [True, False], "source": ["a", "b"]}
    assert read_feedback(file_of(tmp_path, columns)) == [
        Feedback((Message("user", "2 + 2?"),), (Message("assistant", "4"),), True),
        Feedback((Message("user", "3 + 3?"),), (Message("assistant", "7"),), False),
    ]


def test_a_conversation_may_go_on_over_several_turns(tmp_path: Path) -> None:
    said = [("assistant", "5"), ("user", "sure?"), ("assistant", "no, 4")]
    turns = [[{"role": role, "content": content} for role, content in said]]
    (one,) = read_feedback(file_of(tmp_path, {"prompt": ["2 + 2?"], "completion": turns, "label": [True]}))
    assert one.completion == tuple(Message(*message) for message in said)  # type: ignore[arg-type]


def test_a_pair_gives_an_answer_of_each_kind(tmp_path: Path) -> None:
    path = file_of(tmp_path, {"prompt": ["2 + 2?"], "chosen": ["4"], "rejected": ["5"]})
    found = [(one.completion[0].content, one.desirable) for one in read_feedback(path)]
    assert found == [("4", True), ("5", False)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"prompt": ["x"], "completion": ["y"], "labels": [True]},
            "no column 'label'. Did you mean 'labels'? Expected prompt, completion, label or prompt, chosen, rejected, "
            "got prompt, completion, labels",
        ),
        ({"prompt": ["x"], "chosen": ["y"], "regected": ["z"]}, "no column 'rejected'. Did you mean 'regected'?"),
        ({"prompt": ["x"], "completion": ["y"], "label": [1]}, "Column 'label', row 0: expected true or false, got 1."),
        (
            {"prompt": ["x"], "completion": ["y"], "label": pa.array([None], pa.bool_())},
            "row 0: expected true or false",
        ),
        (
            {"prompt": ["x"], "completion": [2], "label": [True]},
            "Column 'completion', row 0: expected a string or messages, got int: 2",
        ),
        ({"prompt": [], "completion": [], "label": []}, "got a table without rows"),
        (
            {"prompt": [[{"role": "assistant", "content": "x"}]], "completion": ["y"], "label": [True]},
            "Column 'prompt', row 0: expected messages of which the last is the user's",
        ),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:30],
)
def test_what_is_wrong_is_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as error:
        read_feedback(file_of(tmp_path, columns))
    assert message in str(error.value)
    assert "data.parquet" in str(error.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_feedback(tmp_path / "nowhere.parquet")

"""Conversations to imitate, in any of TRL's columns."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmgym.calls import ToolCall
from llmgym.data.demonstrations import Conversation, read_conversations
from llmgym.errors import DataError
from llmgym.types import Message


def file_of(tmp_path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), tmp_path / "data.parquet")
    return tmp_path / "data.parquet"


def chat(*said: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in said]


TURNS = (("system", "Be brief."), ("user", "2 + 2?"), ("assistant", "5"), ("user", "sure?"), ("assistant", "4"))
TWO = Conversation(
    (Message("system", "Be brief."), Message("user", "2 + 2?")),
    (Message("assistant", "5"), Message("user", "sure?"), Message("assistant", "4")),
)


@pytest.mark.parametrize(
    "columns",
    [
        {"messages": [chat(*TURNS)]},
        {"prompt": [chat(*TURNS[:2])], "completion": [chat(*TURNS[2:])]},
        {"prompt": [chat(*TURNS[:2])], "chosen": [chat(*TURNS[2:])], "rejected": [chat(("assistant", "6"))]},
    ],
    ids=lambda columns: "+".join(columns),
)
def test_the_assistants_part_follows_the_prompt_whatever_the_columns(tmp_path: Path, columns: dict[str, Any]) -> None:
    assert read_conversations(file_of(tmp_path, columns)) == [TWO]


def test_plain_strings_are_a_question_and_a_reply(tmp_path: Path) -> None:
    path = file_of(tmp_path, {"prompt": ["2 + 2?"], "completion": ["4"]})
    assert read_conversations(path) == [Conversation((Message("user", "2 + 2?"),), (Message("assistant", "4"),))]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"message": ["x"]},
            "no column 'messages'. Did you mean 'message'? Expected messages or prompt, completion or prompt, chosen, "
            "got message",
        ),
        ({"prompt": ["x"], "completions": ["y"]}, "no column 'completion'. Did you mean 'completions'?"),
        ({"messages": [chat(*TURNS[:4])]}, "Column 'messages', row 0: expected assistant and user (or tool) in turn"),
        ({"messages": [chat(*TURNS[:2])]}, "assistant first and last, got none"),
        ({"messages": [chat(*TURNS[2:])]}, "Column 'messages', row 0: expected messages of which the last is the user"),
        ({"messages": [chat(("robot", "x"))]}, "row 0: expected a role of system, user, assistant, tool, got 'robot'"),
        ({"prompt": pa.array([], pa.string()), "chosen": pa.array([], pa.string())}, "a table without rows"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:30],
)
def test_what_is_wrong_is_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as error:
        read_conversations(file_of(tmp_path, columns))
    assert message in str(error.value)
    assert "data.parquet" in str(error.value)


def test_answers_marked_good_and_bad_are_no_demonstrations(tmp_path: Path) -> None:
    path = tmp_path / "feedback.parquet"
    pq.write_table(pa.table({"prompt": ["a", "b"], "completion": ["c", "d"], "label": [True, False]}), path)
    with pytest.raises(DataError, match="marked good and bad"):
        read_conversations(path)


TOOL = {"type": "function", "function": {"name": "disk", "description": "Look.", "parameters": {"type": "object"}}}


@pytest.mark.parametrize("arguments", [{"service": "auth"}, '{"service": "auth"}'])
@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL]), [json.dumps(TOOL)]])
def test_calls_of_tools_are_read_as_trl_and_openai_write_them(tmp_path: Path, arguments: object, tools: object) -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "disk", "arguments": arguments}}]
    answer = {"role": "tool", "content": "40 %", "name": "disk", "tool_call_id": "c1"}
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": calls}, answer]
    file = tmp_path / "calls.jsonl"
    file.write_text(
        json.dumps({"messages": [*messages, {"role": "assistant", "content": "done"}], "tools": tools}) + "\n"
    )
    (read,) = read_conversations(file)
    assert read.completion[0] == Message("assistant", "", calls=(ToolCall("disk", {"service": "auth"}, "c1"),))
    assert read.completion[1].call_id == "c1"
    assert read.tools == (TOOL,)


def test_what_arrow_fills_in_between_two_calls_is_no_argument(tmp_path: Path) -> None:
    calls = [{"function": {"name": "one", "arguments": {"a": 1}}}, {"function": {"name": "two", "arguments": {"b": 2}}}]
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": calls}]
    pq.write_table(pa.Table.from_pylist([{"messages": messages}]), tmp_path / "calls.parquet")
    (read,) = read_conversations(tmp_path / "calls.parquet")
    assert read.completion[0].calls == (ToolCall("one", {"a": 1}), ToolCall("two", {"b": 2}))


@pytest.mark.parametrize(
    ("call", "tools", "expected"),
    [
        ({"function": {"name": "disk"}}, None, "row 0: expected tool_calls as a list of"),
        ({"function": {"name": "disk", "arguments": "no JSON"}}, None, "row 0: expected tool_calls as a list of"),
        ({"function": {"name": "disk", "arguments": {}}}, [{"name": "disk"}], "Column 'tools', row 0: expected a list"),
    ],
)
def test_calls_and_tools_that_cannot_be_read_are_refused(
    tmp_path: Path, call: object, tools: object, expected: str
) -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    file = tmp_path / "calls.jsonl"
    file.write_text(json.dumps({"messages": messages, "tools": tools} if tools else {"messages": messages}) + "\n")
    with pytest.raises(DataError, match=expected):
        read_conversations(file)

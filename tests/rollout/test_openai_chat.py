"""Conversations in OpenAI's protocol: always legal, and what comes back is the action that was meant."""

import json
from typing import Any

import pytest
from chat_server import fault_of
from hypothesis import given
from hypothesis import strategies as st

from llmgym.calls import BadCall, ToolCall
from llmgym.rollout.openai_chat import action_in, reply_text, request_messages
from llmgym.types import Message

TOOLS: Any = ({"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}},)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.text(), VALUES, max_size=3)
NAMES = st.text("abc_", min_size=1)
CALLS = st.lists(st.tuples(NAMES, ARGUMENTS, st.none() | st.text(min_size=1)), max_size=3)
SAID = st.text().filter(lambda text: "<tool_call>" not in text and not text.lstrip().startswith("<think>"))


@given(SAID, CALLS)
def test_a_reply_is_read_as_the_calls_that_it_was_made_of(said: str, calls: list[tuple[str, Any, str | None]]) -> None:
    sent = [(name, json.dumps(arguments), id) for name, arguments, id in calls]
    action = action_in(reply_text(said, sent))
    assert action.calls == tuple(ToolCall(*call) for call in calls)
    assert action.said == said.strip()


@pytest.mark.parametrize("arguments", ['{"a": 1', "[1]", "7", '{"a": 1}, "name": "drop"', '{"a": NaN}', [1], 7])
def test_arguments_that_are_no_object_are_a_call_that_cannot_be_read(arguments: Any) -> None:
    (call,) = action_in(reply_text(None, [("add", arguments, "x")])).calls
    assert isinstance(call, BadCall)


@pytest.mark.parametrize("arguments", ["", None, "{}", " "])
def test_no_arguments_are_none(arguments: Any) -> None:
    assert action_in(reply_text("", [("now", arguments, None)])).calls == (ToolCall("now", {}),)


def test_a_call_that_is_only_thought_of_is_none() -> None:
    thought = '<think>\n<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call></think>Done.'
    assert action_in(thought).calls == ()


REPLIES = st.builds(reply_text, SAID, CALLS) | st.just('<tool_call>\n{"name": "add"\n</tool_call>')
MESSAGES = (
    st.builds(Message, st.sampled_from(["system", "user"]), st.text())
    | st.builds(Message, st.just("assistant"), REPLIES)
    | st.builds(Message, st.just("tool"), st.text(), st.none() | NAMES, st.none() | st.text(min_size=1))
    | st.builds(
        Message,
        st.just("assistant"),
        st.text(),
        calls=st.lists(st.builds(ToolCall, NAMES, ARGUMENTS), max_size=2).map(tuple),
    )
)


@given(st.lists(MESSAGES, max_size=8))
def test_whatever_is_said_is_sent_as_a_legal_conversation_in_its_order(messages: list[Message]) -> None:
    sent = request_messages(messages, TOOLS)
    assert fault_of(sent) is None
    assert len(sent) == len(messages)
    json.dumps(sent)
    for one, message in zip(sent, messages, strict=True):
        if message.role != "assistant":
            assert message.content in one["content"]


def test_calls_and_their_answers_share_an_id() -> None:
    said = reply_text("Two.", [("add", {"a": 1}, "their-id-1"), ("add", {"a": 2}, "their-id-2")])
    answers = [Message("tool", text, "add", f"call0000{place}") for place, text in enumerate("34")]
    sent = request_messages([Message("user", "?"), Message("assistant", said), *answers], TOOLS)
    assert sent[1]["content"] == "Two."
    assert [call["id"] for call in sent[1]["tool_calls"]] == [one["tool_call_id"] for one in sent[2:]]
    assert [call["function"]["arguments"] for call in sent[1]["tool_calls"]] == ['{"a": 1}', '{"a": 2}']


def test_where_nothing_can_be_called_nothing_is_a_call() -> None:
    said = reply_text("", [("add", {}, None)])
    assert request_messages([Message("assistant", said)]) == [{"role": "assistant", "content": said}]

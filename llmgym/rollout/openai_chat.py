"""Conversations in OpenAI's chat protocol, and replies to them as text."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

from llmgym.calls import (
    CLOSING,
    OPENING,
    Action,
    Schemas,
    ToolCall,
    action_of,
    calling,
    tagged_calls,
    without_thought,
)
from llmgym.rollout.template import told
from llmgym.rollout.tool_format import paired
from llmgym.types import Message


def request_messages(messages: Sequence[Message], tools: Schemas = ()) -> list[dict[str, Any]]:
    """Return a conversation as a server of chat completions takes it.

    Calls in replies go apart from what the reply says, with what tools answered to them. What tools say for another
    reason, such as to a call that cannot be read, the user says.

    Args:
        messages: The conversation; replies have their calls as `reply_text` writes them.
        tools: What can be called; without tools nothing is a call.
    """
    spoken = paired([_with_calls(message) if tools else message for message in messages])
    found: list[dict[str, Any]] = []
    while len(found) < len(spoken):
        at = len(found)
        message, answers = spoken[at], list(takewhile(lambda one: one.role == "tool", spoken[at + 1 :]))
        if message.calls and [one.call_id for one in answers] == [call.id for call in message.calls]:
            found += [_calling(message), *map(_answering, answers)]
        else:
            found.append(_in_words(messages[at]))
    return found


def reply_text(said: str | None, calls: Iterable[tuple[str, Any, str | None]]) -> str:
    r"""Return a reply as text, with its calls as `llmgym.calls` writes them.

    Args:
        said: What it says, if anything.
        calls: Name, arguments and id of each call. Arguments that are no JSON object stay as they came.

    Examples:
        >>> print(reply_text("A sum.", [("add", '{"a": 1, "b": 2}', "call_1")]))
        A sum.
        <tool_call>
        {"name": "add", "arguments": {"a": 1, "b": 2}, "id": "call_1"}
        </tool_call>
    """
    written = []
    for name, arguments, id in calls:
        call = {"name": name, "arguments": _object(arguments), **({} if id is None else {"id": id})}
        written.append(f"{OPENING}\n{json.dumps(call, ensure_ascii=False)}\n{CLOSING}")
    return "\n".join([*([said] if said else []), *written])


def action_in(text: str) -> Action:
    """Return a reply with the calls in it; those that it only thinks of are none."""
    thoughts, rest = without_thought(text)
    action = action_of(rest, tagged_calls(rest))
    return Action(text, (thoughts + action.said).strip(), action.calls)


def _object(arguments: Any) -> Any:
    """Return arguments, which most servers write as JSON, as an object; as they are, if they are none."""
    if not isinstance(arguments, str):
        return {} if arguments is None else arguments
    if not arguments.strip():
        return {}
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def _with_calls(message: Message) -> Message:
    """Return a reply with its calls apart from what it says, if all of them can be read."""
    if message.role != "assistant" or message.calls:
        return message
    action = action_in(message.content)
    calls = tuple(call for call in action.calls if isinstance(call, ToolCall))
    return replace(message, content=action.said, calls=calls) if len(calls) == len(action.calls) else message


def _calling(message: Message) -> dict[str, Any]:
    """Return a reply that calls tools; the protocol has arguments as JSON in a string."""
    calls = [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
        for call in message.chat["tool_calls"]
    ]
    return {**message.chat, "tool_calls": calls}


def _answering(message: Message) -> dict[str, Any]:
    """Return what a tool answers."""
    return {"role": "tool", "content": message.content, "tool_call_id": message.call_id}


def _in_words(message: Message) -> dict[str, Any]:
    """Return a message as plain text."""
    if message.role == "tool":
        return {"role": "user", "content": told([message])}
    said = calling(*message.calls, said=message.content) if message.calls else message.content
    return {"role": message.role, "content": str(said)}

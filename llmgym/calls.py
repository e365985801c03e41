r"""Calls of tools: what an agent asks for, and the plain text in which it can be asked for anywhere.

Models of different families write calls in different ways, and `llmgym.rollout` reads them. This is the way for
everybody else: for whoever plays an environment by hand, and for models whose chat template knows no tools. It is that
of Hermes and Qwen 2.5: one JSON object for each call, between tags.

Examples:
    >>> action = read_calls('Let me see.\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>')
    >>> action.said, action.calls
    ('Let me see.', (ToolCall(name='add', arguments={'a': 1}, id=None),))
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

OPENING, CLOSING = "<tool_call>", "</tool_call>"

_END_OF_THOUGHT = "</think>"


Schema = Mapping[str, Any]
"""What a model is told of a tool, as OpenAI's protocol and chat templates have it."""

Schemas = tuple[Schema, ...]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool.

    Attributes:
        name: Of the tool.
        arguments: What it is called with, by name.
        id: What its answer refers to; None if the model gives its calls no ids.

    Example:
        >>> ToolCall("search", {"query": "disk full"}).chat
        {'type': 'function', 'function': {'name': 'search', 'arguments': {'query': 'disk full'}}}
    """

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None

    @property
    def chat(self) -> dict[str, Any]:
        """The call as chat templates and OpenAI's protocol have it."""
        named = {} if self.id is None else {"id": self.id}
        return {**named, "type": "function", "function": {"name": self.name, "arguments": dict(self.arguments)}}


@dataclass(frozen=True, slots=True)
class BadCall:
    """Something that was meant to be a call and cannot be read.

    Attributes:
        text: What was written.
        error: What is wrong with it.
    """

    text: str
    error: str


Call = ToolCall | BadCall

Piece = str | Call
"""A part of a reply: what is said, or a call."""


class Action(str):
    """A reply, with the calls that are in it.

    It is the string that was replied, so it is an action of any text environment. An expert makes one with `calling`.

    Attributes:
        said: What the reply says apart from its calls.
        calls: The calls, in order.

    Example:
        >>> action = calling(ToolCall("add", {"a": 1, "b": 2}), said="A sum.")
        >>> print(action)
        A sum.
        <tool_call>
        {"name": "add", "arguments": {"a": 1, "b": 2}}
        </tool_call>
        >>> action.said
        'A sum.'
    """

    said: str
    calls: tuple[Call, ...]

    def __new__(cls, text: str, said: str, calls: Sequence[Call]) -> Self:
        """Return a text as an action."""
        action = super().__new__(cls, text)
        action.said, action.calls = said, tuple(calls)
        return action

    def __getnewargs__(self) -> tuple[str, str, tuple[Call, ...]]:  # type: ignore[override]  # for pickle and copy
        return str(self), self.said, self.calls


ActionLike = str | ToolCall | Sequence[ToolCall]
"""What an expert replies: a text, a call of a tool, or several calls."""


def calling(*calls: ToolCall, said: str = "") -> Action:
    """Return the action of calling tools."""
    written = [f"{OPENING}\n{_as_json(call)}\n{CLOSING}" for call in calls]
    return Action("\n".join([*([said] if said else []), *written]), said, calls)


def as_action(reply: ActionLike) -> str:
    """Return what an expert yields as an action: a text as it is, one or several calls as one of calling them."""
    if isinstance(reply, str):
        return reply
    return calling(*([reply] if isinstance(reply, ToolCall) else reply))


def read_calls(text: str) -> Action:
    """Return a reply with the calls in it that are written in plain text."""
    return action_of(text, tagged_calls(text))


def action_of(text: str, pieces: Iterator[Piece]) -> Action:
    """Return a text as an action whose parts are known."""
    found = list(pieces)
    said = "".join(piece for piece in found if isinstance(piece, str)).strip()
    return Action(text, said, [piece for piece in found if not isinstance(piece, str)])


def tagged_calls(text: str) -> Iterator[Piece]:
    """Yield what is said and, between tags, JSON objects or arrays of them as calls.

    A tag within a string of the JSON closes nothing.
    """
    at = 0
    while (found := text.find(OPENING, at)) >= 0:
        yield text[at:found]
        start = found + len(OPENING)
        value, stop = read_json(text, start)
        closed = stop is not None and text[stop:].lstrip().startswith(CLOSING)
        if closed:
            yield from calls_in(value, text[start:stop])
            at = text.index(CLOSING, stop) + len(CLOSING)
            continue
        end = text.find(CLOSING, start)
        body = text[start:] if end < 0 else text[start:end]
        yield BadCall(body.strip(), f"expected {CLOSING} after the call" if end < 0 else "expected one JSON object")
        at = len(text) if end < 0 else end + len(CLOSING)
    yield text[at:]


def read_json(text: str, start: int) -> tuple[Any, int | None]:
    """Return the JSON value that a text has from `start` on, and where it ends; (None, None) if there is none."""
    start += len(text[start:]) - len(text[start:].lstrip())
    try:
        return _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, None


def calls_in(value: Any, text: str) -> Iterator[Call]:
    """Yield a JSON value as a call, or each of an array's.

    Args:
        value: An object with ``name`` and ``arguments``, which some families call ``parameters``, or an array of them.
        text: It as it was written.
    """
    if isinstance(value, list) and value:
        for one in value:
            yield from calls_in(one, json.dumps(one, ensure_ascii=False)) if isinstance(one, dict) else _no_call(text)
        return
    if not isinstance(value, dict):
        yield from _no_call(text)
        return
    name, arguments = value.get("name"), value.get("arguments", value.get("parameters", {}))
    if not isinstance(name, str) or not isinstance(arguments, dict):
        yield from _no_call(text)
        return
    named = value.get("id")
    yield ToolCall(name, arguments, named if isinstance(named, str) else None)


def without_thought(text: str, *, opened: bool = False) -> tuple[str, str]:
    """Divide a reply into the thought that it begins with, if it does, and what comes after.

    Args:
        text: The reply.
        opened: Whether the thought was begun before the reply.
    """
    if not (opened or text.lstrip().startswith("<think>")):
        return "", text
    thought, end, rest = text.partition(_END_OF_THOUGHT)
    return thought + end, rest


def _no_call(text: str) -> Iterator[BadCall]:
    yield BadCall(text.strip(), 'expected a JSON object such as {"name": "...", "arguments": {...}}')


def _as_json(call: ToolCall) -> str:
    named = {} if call.id is None else {"id": call.id}
    return json.dumps({"name": call.name, "arguments": dict(call.arguments), **named}, ensure_ascii=False)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)

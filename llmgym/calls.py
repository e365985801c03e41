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
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeGuard

from llmgym.errors import EnvironmentContractError

OPENING, CLOSING = "<tool_call>", "</tool_call>"

_ID = re.compile("[A-Za-z0-9]{9}")
_END_OF_THOUGHT = "</think>"
_DEEPEST = 64  # arguments within arguments: whoever walks through them does so by recursion
_MOST_CALLS = 1000  # in a reply, so that no text takes long to read
_SPACE = re.compile(r"\s*")


def well_formed(text: str) -> str:
    """Return a text with question marks for its lone surrogates, which UTF-8 has no bytes for."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


Schema = Mapping[str, Any]
"""What a model is told of a tool, as OpenAI's protocol and chat templates have it."""

Schemas = tuple[Schema, ...]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool.

    Attributes:
        name: Of the tool.
        arguments: What it is called with, by name: values that JSON has. Numbers and arrays of NumPy become Python's.
        id: What its answer refers to; None if the model gives its calls no ids.

    Raises:
        EnvironmentContractError: An argument is no JSON value, or nested too deeply.

    Example:
        >>> ToolCall("search", {"query": "disk full"}).chat
        {'type': 'function', 'function': {'name': 'search', 'arguments': {'query': 'disk full'}}}
    """

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None

    def __post_init__(self) -> None:
        try:
            arguments = _json_value(dict(self.arguments))
        except ValueError as error:
            raise EnvironmentContractError(
                f"A call of {self.name!r:.80} has arguments that are no JSON: {error}"
            ) from None
        object.__setattr__(self, "name", well_formed(self.name))
        object.__setattr__(self, "arguments", arguments)

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


def made_id(number: int) -> str:
    """Return an id for a call that has none: nine letters and digits, as Mistral's template wants them.

    Examples:
        >>> made_id(7)
        'call00007'
    """
    return f"call{number:05d}"


def is_id(text: str | None) -> TypeGuard[str]:
    """Tell whether a text is an id that every template takes."""
    return text is not None and _ID.fullmatch(text) is not None


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
    """Return a text as an action whose parts are known; what comes after its first thousand calls is not read."""
    said: list[str] = []
    calls: list[Call] = []
    for piece in pieces:
        if isinstance(piece, str):
            said.append(piece)
        elif len(calls) < _MOST_CALLS:
            calls.append(piece)
        else:
            calls.append(BadCall("", f"expected at most {_MOST_CALLS} calls in one reply; the rest of it was not read"))
            break
    return Action(text, "".join(said).strip(), calls)


def tagged_calls(text: str) -> Iterator[Piece]:
    """Yield what is said and, between tags, JSON objects or arrays of them as calls.

    A tag within a string of the JSON closes nothing.
    """
    at = 0
    while (found := text.find(OPENING, at)) >= 0:
        yield text[at:found]
        start = found + len(OPENING)
        value, stop = read_json(text, start)
        closed = stop is not None and text.startswith(CLOSING, after_space(text, stop))
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
    try:
        return _DECODER.raw_decode(text, after_space(text, start))
    except (ValueError, RecursionError):
        return None, None


def after_space(text: str, at: int) -> int:
    """Return where the white space ends that a text may have at a place."""
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def calls_in(value: Any, text: str) -> Iterator[Call]:
    """Yield a JSON value as a call, or each of an array's.

    Args:
        value: An object with ``name`` and ``arguments``, which some families call ``parameters``, or an array of them.
        text: It as it was written.
    """
    several = isinstance(value, list) and len(value) > 0 and all(isinstance(one, dict) for one in value)
    for one in value if several else [value]:
        known = one if isinstance(one, dict) else {}
        name, arguments = known.get("name"), known.get("arguments", known.get("parameters", {}))
        if isinstance(name, str) and isinstance(arguments, dict):
            yield call_or_what_is_wrong(name, arguments, known.get("id"), text)
        else:
            yield BadCall(text.strip(), 'expected a JSON object such as {"name": "...", "arguments": {...}}')


def call_or_what_is_wrong(name: str, arguments: Mapping[str, Any], id: object, text: str) -> Call:
    """Return a call that was read, or why it cannot be one.

    Args:
        name: Of the tool.
        arguments: As they were read.
        id: What it has in place of an id.
        text: The call as it was written.
    """
    try:
        return ToolCall(name, arguments, id if isinstance(id, str) else None)
    except EnvironmentContractError as error:
        return BadCall(text.strip(), str(error))


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


def _as_json(call: ToolCall) -> str:
    named = {} if call.id is None else {"id": call.id}
    return json.dumps({"name": call.name, "arguments": dict(call.arguments), **named}, ensure_ascii=False)


def _json_value(value: Any, levels: int = _DEEPEST) -> Any:
    """Return a value as JSON has it.

    Raises:
        ValueError: JSON has no such value, or it is nested too deeply.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, str):
        return well_formed(str(value))
    if not levels:
        raise ValueError(f"expected at most {_DEEPEST} values within one another")
    if isinstance(value, Mapping):
        return {well_formed(str(key)): _json_value(one, levels - 1) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(one, levels - 1) for one in value]
    if hasattr(value, "tolist"):
        return _json_value(value.tolist(), levels - 1)
    raise ValueError(f"got {type(value).__name__}: {value!r:.80}")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


_DECODER = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_once)

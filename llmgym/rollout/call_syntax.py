"""The ways in which model families write calls of tools, each as a reader of replies."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llmgym.calls import BadCall, Call, Piece, call_or_what_is_wrong, calls_in, read_json, tagged_calls

Types = Mapping[str, Mapping[str, Any]]
"""The JSON schema of every argument, of every tool: what is written without quotes is read by its type."""

Reader = Callable[[str, Types], Iterator[Piece]]
"""Yields the parts of a reply, what is said and calls, in order."""


def _hermes(text: str, types: Types) -> Iterator[Piece]:
    """Hermes, Qwen 2.5, Qwen 3, SmolLM 3: JSON between tags."""
    return tagged_calls(text)


def _functions(text: str, types: Types) -> Iterator[Piece]:
    """Qwen 3 Coder, Qwen 3.5: a tag for the function and one for every argument, its value as it is."""
    for said, body, closed in _between(text, "<tool_call>", "</tool_call>"):
        yield said
        if body is None:
            return
        named = re.match(r"\s*<function=([^>\n]+)>\n?", body)
        ended = re.search(r"</function>\s*\Z", body)
        if named is None or ended is None or not closed:
            yield BadCall(body.strip(), "expected <function=name>, its parameters and </function> within <tool_call>")
            continue
        pairs = _pairs(body[named.end() : ended.start()], _PARAMETER, _PARAMETER_END)
        lines = None if pairs is None else [(key, text.removeprefix("\n").removesuffix("\n")) for key, text in pairs]
        yield _call_of(named[1], lines, types, body)


def _keys_and_values(text: str, types: Types) -> Iterator[Piece]:
    """GLM 4.5: the name, then tags for every argument's name and value."""
    for said, body, closed in _between(text, "<tool_call>", "</tool_call>"):
        yield said
        if body is None:
            return
        name = re.match(r"\s*([^\s<]+)\s*", body)
        if name is None or not closed:
            yield BadCall(body.strip(), "expected a name, <arg_key>, <arg_value> and so on, then </tool_call>")
            continue
        yield _call_of(name[1], _pairs(body[name.end() :], _KEY, _VALUE_END), types, body)


def _whole_reply(text: str, types: Types) -> Iterator[Piece]:
    """Llama 3.1 and 3.2: the reply is nothing but one JSON object, or several with semicolons between them."""
    rest = text.strip().removeprefix("<|python_tag|>")
    if not re.match(r'\s*\{\s*"(?:name|type|parameters)"', rest):
        yield text
        return
    at = 0
    while at < len(rest):
        value, stop = read_json(rest, at)
        if stop is None:
            yield BadCall(rest[at:].strip(), "expected one JSON object and nothing else")
            return
        yield from calls_in(value, rest[at:stop])
        at = _BETWEEN.match(rest, stop).end()  # type: ignore[union-attr]  # it matches anywhere


def _mistral(text: str, types: Types) -> Iterator[Piece]:
    """Mistral: a token, then an array of JSON objects, or name and arguments of each."""
    said, *bodies = re.split(r"\[TOOL_CALLS\]", text)
    yield said
    for body in bodies:
        newer = re.match(r"\s*([\w.-]+)(?:\[CALL_ID\]([\w-]+))?\[ARGS\]", body)
        value, stop = read_json(body, newer.end() if newer else 0)
        if stop is None or body[stop:].strip():
            yield BadCall(body.strip(), "expected JSON after [TOOL_CALLS]")
        elif newer is None:
            yield from calls_in(value, body)
        elif isinstance(value, dict):
            yield call_or_what_is_wrong(newer[1], value, newer[2], body)
        else:
            yield BadCall(body.strip(), "expected a JSON object after [ARGS]")


SYNTAXES: tuple[Reader, ...] = (
    _hermes,
    _functions,
    _keys_and_values,
    _whole_reply,
    _mistral,
)
"""All that are known."""


_PARAMETER, _PARAMETER_END = re.compile(r"<parameter=([^>\n]+)>"), re.compile(r"</parameter>\s*(?=<parameter=|\Z)")
_KEY = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>", re.DOTALL)
_VALUE_END = re.compile(r"</arg_value>\s*(?=<arg_key>|\Z)")
_BETWEEN = re.compile(r"[; \n]*")

_PYTHON = {"True": True, "False": False, "None": None}  # as templates show them that make a text of any value


def _between(text: str, opening: str, closing: str) -> Iterator[tuple[str, str | None, bool]]:
    """Yield what is said before each pair of tags, what stands between them, and whether the second one is there.

    The last one has no tags: None.
    """
    at = 0
    while (found := text.find(opening, at)) >= 0:
        start = found + len(opening)
        end = text.find(closing, start)
        yield text[at:found], text[start:] if end < 0 else text[start:end], end >= 0
        at = len(text) if end < 0 else end + len(closing)
    yield text[at:], None, False


def _pairs(text: str, begin: re.Pattern[str], end: re.Pattern[str]) -> list[tuple[str, str]] | None:
    """Return names and values that a text is made of; None if it is not, or has a name twice.

    Args:
        text: One pair after another.
        begin: What a pair begins with, the name in it.
        end: What one ends with, and another pair or nothing follows; it may be within a value too.
    """
    *pieces, left = end.split(text.strip())
    begun = [(begin.match(piece), piece) for piece in pieces]
    pairs = [(found[1].strip(), piece[found.end() :]) for found, piece in begun if found is not None]
    return pairs if len(dict(pairs)) == len(pieces) and not left else None


def _call_of(name: str, pairs: list[tuple[str, str]] | None, types: Types, body: str) -> Call:
    """Return a call whose arguments are written without quotes; None if they could not be read."""
    name, known = name.strip(), types.get(name.strip(), {})
    if pairs is None:
        return BadCall(body.strip(), "expected every argument once, and nothing else")
    return call_or_what_is_wrong(name, {key: _value(text, known.get(key, {})) for key, text in pairs}, None, body)


def _value(text: str, schema: Mapping[str, Any]) -> Any:
    """Return an argument as its type wants it: texts as they are, anything else as JSON if it is some."""
    if _takes_text(schema) and not (text == "null" and {"type": "null"} in schema.get("anyOf", ())):
        return text
    if text in _PYTHON:
        return _PYTHON[text]
    value, stop = read_json(text, 0)
    return text if stop is None or text[stop:].strip() else value


def _takes_text(schema: Mapping[str, Any]) -> bool:
    """Tell whether an argument may be a text, by its JSON schema."""
    if any(_takes_text(one) for one in schema.get("anyOf", ())):
        return True
    if "enum" in schema or "const" in schema:
        values = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])]
        return any(isinstance(one, str) for one in values)
    return schema.get("type") == "string"


def types_of(tools: tuple[Mapping[str, Any], ...]) -> Types:
    """Return what `Types` are of declared tools."""
    functions = [tool["function"] for tool in tools]
    return {one["name"]: one.get("parameters", {}).get("properties", {}) for one in functions}


def as_json_lines(tools: tuple[Mapping[str, Any], ...]) -> str:
    """Return declared tools as text, one per line."""
    return "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)

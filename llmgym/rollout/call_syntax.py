"""The ways in which model families write calls of tools, each as a reader of replies."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llmgym.calls import BadCall, Piece, ToolCall, calls_in, read_json, tagged_calls

Types = Mapping[str, Mapping[str, Any]]
"""The JSON schema of every argument, of every tool: what is written without quotes is read by its type."""

Reader = Callable[[str, Types], Iterator[Piece]]
"""Yields the parts of a reply, what is said and calls, in order."""


def _hermes(text: str, types: Types) -> Iterator[Piece]:
    """Hermes, Qwen 2.5, Qwen 3, SmolLM 3: JSON between tags."""
    return tagged_calls(text)


def _functions(text: str, types: Types) -> Iterator[Piece]:
    """Qwen 3 Coder, Qwen 3.5, Nemotron 3: a tag for the function and one for every argument, its value as it is."""
    for said, body, closed in _between(text, "<tool_call>", "</tool_call>"):
        yield said
        if body is None:
            return
        named = re.match(r"\s*<function=([^>\n]+)>\n?", body)
        ended = re.search(r"</function>\s*\Z", body)
        if named is None or ended is None or not closed:
            yield BadCall(body.strip(), "expected <function=name>, its parameters and </function> within <tool_call>")
            continue
        inner = body[named.end() : ended.start()]
        pairs = re.findall(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>\s*?(?=<parameter=|\s*\Z)", inner, re.DOTALL)
        left = re.sub(r"<parameter=[^>\n]+>.*?</parameter>\s*?(?=<parameter=|\s*\Z)", "", inner, flags=re.DOTALL)
        yield _call_of(named[1], pairs, left, types, body)


def _keys_and_values(text: str, types: Types) -> Iterator[Piece]:
    """GLM 4.5: the name, then tags for every argument's name and value."""
    pair = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>(?=\s*(?:<arg_key>|\Z))", re.DOTALL)
    for said, body, closed in _between(text, "<tool_call>", "</tool_call>"):
        yield said
        if body is None:
            return
        name = re.match(r"\s*([^\s<]+)\s*", body)
        if name is None or not closed:
            yield BadCall(body.strip(), "expected a name, <arg_key>, <arg_value> and so on, then </tool_call>")
            continue
        inner = body[name.end() :]
        yield _call_of(name[1], pair.findall(inner), pair.sub("", inner), types, body)


def _whole_reply(text: str, types: Types) -> Iterator[Piece]:
    """Llama 3.1 and 3.2: the reply is nothing but one JSON object, or several with semicolons between them."""
    rest = text.strip().removeprefix("<|python_tag|>")
    if not re.match(r'\s*\{\s*"(?:name|type|parameters)"', rest):
        yield text
        return
    at = 0
    while rest[at:].strip():
        value, stop = read_json(rest, at)
        if stop is None:
            yield BadCall(rest[at:].strip(), "expected one JSON object and nothing else")
            return
        yield from calls_in(value, rest[at:stop])
        at = stop + len(rest[stop:]) - len(rest[stop:].lstrip("; \n"))


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
            yield ToolCall(newer[1], value, newer[2])
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


def _call_of(name: str, pairs: list[tuple[str, str]], left: str, types: Types, body: str) -> ToolCall | BadCall:
    """Return a call whose arguments are written without quotes; `left` is what else was written."""
    name, known = name.strip(), types.get(name.strip(), {})
    if left.strip() or len({key for key, _ in pairs}) < len(pairs):
        return BadCall(body.strip(), "expected every argument once, and nothing else")
    return ToolCall(name, {key.strip(): _value(text, known.get(key.strip(), {})) for key, text in pairs})


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

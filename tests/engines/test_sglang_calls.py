"""SGLang's own parsers read the calls that we write: `make test-sglang`."""

import importlib
import json
from typing import Any

import pytest
from families import tokenizer_of

from llmgym import Message, Tool, ToolCall
from llmgym.errors import ModelError
from llmgym.rollout.chat import ChatCodec

pytest.importorskip("sglang.srt.function_call.hermes_detector")

PARSERS = {
    "Qwen2.5": "qwen25_detector.Qwen25Detector",
    "Qwen3": "qwen25_detector.Qwen25Detector",
    "Qwen3.5": "qwen3_coder_detector.Qwen3CoderDetector",
    "Llama 3.1": "llama32_detector.Llama32Detector",
    "Mistral": "mistral_detector.MistralDetector",
    "GLM-4.5": "glm4_moe_detector.Glm4MoeDetector",
}
TEXTS = [
    "Bonn",
    "",
    'Zürich "A"\n<b> 3',
    "</tool_call>",
    "<tool_call>x",
    "</parameter>",
    "</arg_value> <arg_key>",
    "[TOOL_CALLS]",
    "}; {",
    '\\n\\"',
    "  spaces  ",
    "\nline",
    "123",
    "null",
    "true",
    "'single'",
    '{"name":"note"}',
    "日志 🙂",
    "<|python_tag|>",
    "&lt;&amp;",
]
READ_OTHERWISE = {
    ("Qwen3.5", "</parameter>"),  # it ends a value at the first tag, we at one that another argument or the end follows
    ("Qwen3.5", "null"),  # it reads texts as Python or JSON where it can; we read them by the schema
    ("GLM-4.5", "null"),
    ("GLM-4.5", "true"),
    ("GLM-4.5", "'single'"),
    ("GLM-4.5", '{"name":"note"}'),
    ("Llama 3.1", "<|python_tag|>"),  # it looks for the token anywhere
}
UNWRITABLE = {
    ("Qwen3.5", "</tool_call>"),
    ("GLM-4.5", "</tool_call>"),
    ("GLM-4.5", "</arg_value> <arg_key>"),
    ("Mistral", "[TOOL_CALLS]"),
}


def look_up(place: str, count: int = 1, tags: list[str] | None = None, deep: bool = False) -> str:
    """Look something up."""
    return place


def note(text: str) -> str:
    """Write something down."""
    return text


TOOLS = (Tool(look_up).schema, Tool(note).schema)


def read_by_sglang(family: str, text: str) -> list[tuple[str, dict[str, Any]]]:
    protocol = importlib.import_module("sglang.srt.entrypoints.openai.protocol")
    tools = [protocol.Tool(type="function", function=protocol.Function(**tool["function"])) for tool in TOOLS]
    module, _, name = PARSERS[family].partition(".")
    parser = getattr(importlib.import_module(f"sglang.srt.function_call.{module}"), name)()
    return [(call.name, json.loads(call.parameters)) for call in parser.detect_and_parse(text, tools).calls]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("family", PARSERS)
@pytest.mark.parametrize("count", [1, 2])
def test_a_parser_reads_what_was_called(family: str, text: str, count: int) -> None:
    codec = ChatCodec(tokenizer_of(family))
    calls = [ToolCall("note", {"text": text}), ToolCall("look_up", {"place": text, "count": 2, "deep": True})][:count]
    if (family, text) in UNWRITABLE:
        with pytest.raises(ModelError, match="so that it can be read back"):
            codec.reply(Message("assistant", "", calls=tuple(calls)))
        return
    tokens = codec.reply(Message("assistant", "", calls=tuple(calls)))
    expected = [(call.name, dict(call.arguments)) for call in calls]
    action: Any = codec.action(tokens, TOOLS)
    assert [(call.name, dict(call.arguments)) for call in action.calls] == expected
    if (family, text) not in READ_OTHERWISE:
        assert read_by_sglang(family, codec.text(tokens)) == expected

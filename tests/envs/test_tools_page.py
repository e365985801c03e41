"""What docs/environments/tools.md shows is what runs."""

import json
import re
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from families import tokenizer_of

from llmgym import Tool, ToolCall, check_env
from llmgym.data.demonstrations import read_conversations
from llmgym.rollout.chat import ChatCodec

PAGE = (Path(__file__).parents[2] / "docs" / "environments" / "tools.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    """What the page's code defines, after it has run."""
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks("python"):
        exec(block, namespace)
    return namespace


def test_its_environment_keeps_its_promises(shown: dict[str, Any]) -> None:
    check_env(gymnasium.make("Shop-v0"))


@pytest.mark.parametrize("family", ["Qwen2.5", "Qwen3.5", "GLM-4.5", "Llama 3.1", "Mistral", "SmolLM2"])
def test_calls_look_as_its_table_shows_them(family: str, shown: dict[str, Any]) -> None:
    form = ChatCodec(tokenizer_of(family)).template.tool_format
    id = "abcdefgh1" if family == "Mistral" else None
    written = form.content("", [ToolCall("price", {"article": "pen"}, id)]).replace("abcdefgh1", "...")
    assert f"`{''.join(written.split())}`" in "".join(PAGE.split())


def test_its_row_of_data_is_read(tmp_path: Path, shown: dict[str, Any]) -> None:
    (block,) = blocks("json")
    (tmp_path / "data.jsonl").write_text(json.dumps(json.loads(block)) + "\n", encoding="utf-8")
    (found,) = read_conversations(tmp_path / "data.jsonl")
    assert found.completion[0].calls == (ToolCall("price", {"article": "pen"}),)
    assert found.tools[0]["function"]["name"] == Tool(shown["Shop"]().price).name

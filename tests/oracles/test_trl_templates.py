"""Templates as TRL ships them: the same formats are found in them as in the reduced ones of the tests."""

import copy
from pathlib import Path

import pytest
from families import tokenizer_of

from llmgym import ToolCall
from llmgym.rollout.chat import ChatCodec

trl = pytest.importorskip("trl", reason="see `make oracles`")

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
FAMILY_OF = {
    "qwen2_5": "Qwen2.5",
    "qwen3": "Qwen3",
    "qwen3_instruct_2507": "Qwen2.5",
    "qwen3_vl": "Qwen3",
    "qwen3_5_nothink": "Qwen3.5",
    "qwen3_5_think": "Qwen3.5",
    "llama3": "Llama 3",
    "llama3_1": "Llama 3.1",
    "llama3_2": "Llama 3.2",
    "glm4moe": "GLM-4.5",
    "gemma": "Gemma 2",
    "gemma3": "Gemma 3",
    "phi3": "Phi-3",
    "deepseek_r1_distill": "DeepSeek-R1 distil",
}
CALL = ToolCall("look_up", {"place": 'Zürich "A"\n1', "count": 2, "tags": ["a", "b"], "deep": True})
OTHER = ToolCall("note", {"text": "x"})


@pytest.mark.parametrize("name", FAMILY_OF)
def test_calls_are_written_as_through_the_template_that_the_tests_have(name: str) -> None:
    reduced = tokenizer_of(FAMILY_OF[name])
    published = copy.deepcopy(reduced)
    published.chat_template = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    theirs, ours = (ChatCodec(one).template.tool_format for one in (published, reduced))
    assert theirs.reader is ours.reader
    for calls in ([CALL], [OTHER], [CALL, OTHER]):
        assert theirs.content("", calls) == ours.content("", calls)

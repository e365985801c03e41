"""A stop string is seen at the token that completes its last character, whatever the tokenizer spells it with."""

from collections.abc import Sequence
from typing import Any

import pytest
from families import FAMILIES, tokenizer_of
from hypothesis import given, settings
from hypothesis import strategies as st

from llmgym.engines.base import Completion
from llmgym.engines.stop_strings import completes, cut
from llmgym.rollout.chat import ChatCodec

KINDS = ["Qwen3", "Llama 2", "Mistral", "Gemma 3", "Phi-3"]
CODECS = {name: ChatCodec(tokenizer_of(name)) for name in KINDS}


def ends_at(name: str, tokens: Sequence[int], stop: Sequence[str]) -> int | None:
    """How many tokens there are when a string is seen first."""
    for count in range(1, len(tokens) + 1):
        if completes(tokens[:count], stop, CODECS[name].spell):
            return count
    return None


def byte_tokens(name: str, text: str | bytes) -> list[int]:
    """The tokens of single bytes."""
    tokenizer = tokenizer_of(name)
    data = text.encode() if isinstance(text, str) else text
    if FAMILIES[name].kind != "bytes":
        return [int(tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>")) for byte in data]
    # Byte-level vocabularies write a byte as its character if that can be seen, and the others in order from U+0100.
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    unseen = [byte for byte in range(256) if byte not in seen]
    spelled = {**{byte: chr(byte) for byte in seen}, **{byte: chr(256 + i) for i, byte in enumerate(unseen)}}
    return [int(tokenizer.convert_tokens_to_ids(spelled[byte])) for byte in data]


@pytest.mark.parametrize("before", ["", "so ", "日", b"\xff", b"\xe6\x97", "🙂".encode()[:3]], ids=repr)
@pytest.mark.parametrize("stop", ["日", "🙂", "é", "日志"])
@pytest.mark.parametrize("name", KINDS)
def test_a_character_of_several_tokens_is_seen_when_its_last_byte_comes(
    name: str, stop: str, before: str | bytes
) -> None:
    if before == stop:
        before = "b"
    said = byte_tokens(name, before) if isinstance(before, bytes) else CODECS[name].reply(before)[:-1]
    tokens = [*said, *byte_tokens(name, stop)]
    for strings in ([stop], [stop, "never, ever, in a hundred years"]):
        assert ends_at(name, [*tokens, *byte_tokens(name, "xyz")], strings) == len(tokens)


@settings(max_examples=40)
@given(text=st.text(alphabet="ab 日é🙂\n<>", min_size=2, max_size=12), data=st.data())
@pytest.mark.parametrize("name", KINDS)
def test_a_string_is_seen_exactly_when_the_text_so_far_has_it(name: str, text: str, data: st.DataObject) -> None:
    codec = CODECS[name]
    tokens = tokenizer_of(name)("x" + text, add_special_tokens=False)["input_ids"]
    start = data.draw(st.integers(0, len(text) - 1))
    stop = text[start : start + data.draw(st.integers(1, 4))]
    expected = next(n for n in range(1, len(tokens) + 1) if stop in codec.spell(tokens[:n]))
    assert ends_at(name, tokens, [stop, "never"]) == expected


@pytest.mark.parametrize("name", KINDS)
def test_a_lone_space_is_seen(name: str) -> None:
    tokens = tokenizer_of(name)("one answer", add_special_tokens=False)["input_ids"]
    seen = ends_at(name, tokens, [" "])
    assert seen is not None
    assert " " in CODECS[name].spell(tokens[:seen])
    assert " " not in CODECS[name].spell(tokens[: seen - 1])


def test_a_special_token_is_seen_sampled_as_one_and_spelled_out() -> None:
    tokenizer = tokenizer_of("Mistral")
    call = tokenizer.get_vocab()["[TOOL_CALLS]"]
    before = tokenizer("so", add_special_tokens=False)["input_ids"]
    spelled = [*before, *byte_tokens("Mistral", "[TOOL_CALLS]")]
    assert ends_at("Mistral", [*before, call, 7], ["[TOOL_CALLS]"]) == len(before) + 1
    assert ends_at("Mistral", [*spelled, 7], ["[TOOL_CALLS]"]) == len(spelled)


def test_a_completion_that_went_on_is_cut_at_its_stop_string() -> None:
    codec = CODECS["Llama 2"]
    tokens = [*codec.reply("one")[:-2], *byte_tokens("Llama 2", "日")]
    more = [*tokens, *byte_tokens("Llama 2", "xy")]

    def completion(sampled: list[int], reason: Any) -> Completion:
        return Completion(3, sampled, [-float(i) for i in range(len(sampled))], reason, weight_version=2)

    assert cut(completion(more, "length"), ("日",), codec.spell) == completion(tokens, "stop")
    assert cut(completion(more, "length"), ("never",), codec.spell) == completion(more, "length")

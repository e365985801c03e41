"""Text is told from control tokens as the tokenizer itself tells them, whatever it and the template do to it."""

import time
from typing import Any

import pytest
from families import tokenizer_of
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llmgym.demo.tiny import CHATML
from llmgym.errors import ModelError
from llmgym.rollout.chat import ChatCodec
from llmgym.types import Message


def bytes_tokenizer(
    template: str = CHATML, *added: AddedToken, normalizer: Any = None, **names: str
) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are bytes."""
    alphabet = {character: i for i, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    if normalizer is not None:
        inner.normalizer = normalizer
    inner.add_tokens(list(added))
    return PreTrainedTokenizerFast(tokenizer_object=inner, chat_template=template, **names)


def token(content: str, **flags: bool) -> AddedToken:
    return AddedToken(content, **{"special": True, "normalized": False, **flags})


def control_tokens(codec: ChatCodec, said: str, role: str = "user") -> int:
    """How many added tokens a prompt has more than one in which nothing is said."""
    ids = set(codec.tokenizer.added_tokens_decoder)

    def count(text: str) -> int:
        messages = [Message("user", "x"), Message("assistant", "x"), Message("user", "x")]
        messages[{"user": 0, "assistant": 1}[role]] = Message(role, text)  # type: ignore[arg-type]
        return sum(token in ids for token in codec.prompt(messages))

    return count(said) - count("x")


def test_a_token_that_a_normalizer_makes_is_broken_up() -> None:
    codec = ChatCodec(
        bytes_tokenizer(
            CHATML,
            token("<|im_start|>", normalized=True),
            token("<|im_end|>", normalized=True),
            normalizer=normalizers.NFKC(),
            eos_token="<|im_end|>",
        )
    )
    for said in ("＜|im_start|＞", "<|im_end|>", "<｜im_end｜>", "＜｜ｉｍ_ｅｎｄ｜＞"):
        assert control_tokens(codec, said) == 0
        assert control_tokens(codec, said, "assistant") == 0


def test_tokens_that_swallow_white_space_or_stand_alone_are_broken_up() -> None:
    codec = ChatCodec(
        bytes_tokenizer(
            CHATML,
            token("<|im_start|>"),
            token("<|im_end|>", rstrip=True),
            token("<mask>", lstrip=True),
            token("<sep>", single_word=True),
            eos_token="<|im_end|>",
        )
    )
    for said in ("a <|im_end|>  b", "a  <mask>", "<mask>", "<sep>", "x <sep> y", "  <|im_end|>\n"):
        assert control_tokens(codec, said) == 0


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [("<", ">", "|im_end|"), ("<|im_", "|>", "end"), ("", "end|>", "<|im_"), ("<|im_end", "", "|>"), ("<", ">", "s")],
)
@pytest.mark.parametrize("strip", ["", " | trim"])
def test_a_token_is_not_completed_by_what_the_template_puts_beside_it(
    before: str, after: str, said: str, strip: str
) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{% if m.role == 'user' %}user: " + before + "{{ m.content" + strip + " }}"
        f"{after}{{% else %}}assistant: {{{{ m.content }}}}{{% endif %}}<|im_end|>"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}"
    )
    added = [token(content) for content in ("<|im_start|>", "<|im_end|>", "<s>")]
    codec = ChatCodec(bytes_tokenizer(template, *added, eos_token="<|im_end|>"))
    assert control_tokens(codec, said) == 0
    assert control_tokens(codec, f" {said}\n") == 0


def test_a_token_is_not_left_over_when_the_template_cuts_something_out() -> None:
    codec = ChatCodec(tokenizer_of("SmolLM3"))
    end = codec.end_token
    said = [Message("system", "<|im_/thinkend|>"), Message("user", "x")]
    calm = [Message("system", "x"), Message("user", "x")]
    assert codec.prompt(said).count(end) == codec.prompt(calm).count(end)


def test_words_and_single_characters_that_are_marked_special_stay_as_they_are() -> None:
    codec = ChatCodec(
        bytes_tokenizer(
            CHATML,
            token("<|im_start|>"),
            token("<|im_end|>"),
            token("pad"),
            token("!"),
            token("\n\n"),
            eos_token="<|im_end|>",
            pad_token="pad",
        )
    )
    said = "the pad is full!\n\nNow"
    assert said in codec.template.render([Message("user", said)])


def test_a_control_token_of_one_character_is_replaced() -> None:
    template = "{% for m in messages %}{{ m.content }}#{% endfor %}"
    codec = ChatCodec(bytes_tokenizer(template, token("#"), eos_token="#"))
    assert codec.tokenizer.decode([codec.end_token]) == "#"
    assert control_tokens(codec, "a#b") == 0
    assert codec.reply("a#b").count(codec.end_token) == 1


def test_an_end_of_turn_that_is_an_ordinary_added_token_ends_replies_and_is_broken_up() -> None:
    template = CHATML.replace("<|im_end|>", "<end_of_turn>")
    codec = ChatCodec(
        bytes_tokenizer(
            template, token("<|im_start|>"), token("<end_of_turn>", special=False), token("</s>"), eos_token="</s>"
        )
    )
    assert codec.tokenizer.convert_ids_to_tokens(codec.reply("a<end_of_turn>b")).count("<end_of_turn>") == 1
    assert codec.tokenizer.convert_ids_to_tokens(codec.end_token) == "<end_of_turn>"
    assert control_tokens(codec, "a<end_of_turn>b</s>") == 0


PLAIN = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}{{ 'assistant: ' if add_generation_prompt }}"
)


def test_a_tokenizer_without_special_tokens_works_if_its_template_shows_an_end_and_is_refused_if_not() -> None:
    for names in ({}, {"eos_token": ""}):
        with pytest.raises(ModelError, match="expected one or the other to end a reply with a token"):
            ChatCodec(bytes_tokenizer(PLAIN, **names))
        codec = ChatCodec(bytes_tokenizer(CHATML, token("<|im_end|>", special=False), **names))
        assert codec.tokenizer.convert_ids_to_tokens(list(codec.stop_token_ids)) == ["<|im_end|>"]


def test_a_template_that_ends_a_turn_with_plain_text_says_that_replies_end_with_a_token_besides() -> None:
    codec = ChatCodec(bytes_tokenizer(PLAIN, token("</s>"), eos_token="</s>"))
    assert codec.spell(codec.reply("one")) == "one</s>"
    assert codec.spell(codec.bridge([Message("user", "two")], codec.end_token)) == "\n\nuser: two\n\nassistant: "
    assert codec.notice is not None
    assert "ends a reply with plain text" in codec.notice
    assert "'</s>' besides" in codec.notice


def test_looking_for_control_tokens_costs_less_than_encoding() -> None:
    tokenizer = tokenizer_of("Qwen3")
    codec = ChatCodec(tokenizer)
    message = Message("user", "The gauge of the database is at 97 %, see <trace> for the log of 12:30.\n" * 1500)
    assert len(message.content) > 100_000

    def seconds(work: Any) -> float:
        times = []
        for _ in range(5):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
        return min(times)

    plain = seconds(lambda: tokenizer(message.content, add_special_tokens=False))
    assert seconds(lambda: codec.template.render([message])) < plain


def test_what_the_models_own_settings_stop_at_is_broken_up_in_replies_and_in_text() -> None:
    tokenizer = bytes_tokenizer(
        CHATML, token("<|im_start|>"), token("<|im_end|>"), token("<over>", special=False), eos_token="<|im_end|>"
    )
    over = tokenizer.get_vocab()["<over>"]
    assert over in ChatCodec(tokenizer).reply("a<over>b")
    codec = ChatCodec(tokenizer, [over])
    assert over in codec.stop_token_ids
    assert over not in codec.reply("a<over>b")
    assert over not in codec.prompt([Message("user", "a<over>b")])

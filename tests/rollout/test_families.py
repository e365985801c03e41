"""Conversations have the tokens that each well-known family's own tokenizer and chat template give them as a whole."""

import pytest
from families import FAMILIES, JOINS, OTHER, SPACE, THINKING, tokenizer_of
from hypothesis import given, settings
from hypothesis import strategies as st

from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.transcript import transcribe
from llmgym.types import Message

NAMES = list(FAMILIES)
GROW = [name for name, family in FAMILIES.items() if OTHER not in family.rewrites]
OPENS_THINKING = ["Qwen3.5", "DeepSeek-R1 distil"]
CODECS = {name: ChatCodec(tokenizer_of(name)) for name in NAMES}

# What is said begins and ends with a word: a template may strip white space, and a tokenizer join it with its own.
WORDS = st.sampled_from(["one", "answer", "日志", "X", "é", "7", "ñandú"])
INSIDE = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="<>[]|｜"), max_size=15)
SAID = st.builds("{}{}{}".format, WORDS, INSIDE, WORDS)


def whole(name: str, messages: list[Message], *, generate: bool = False) -> list[int]:
    """The tokens of a conversation by its family's tokenizer alone."""
    chat = [message.chat for message in messages]
    tokens = tokenizer_of(name).apply_chat_template(chat, add_generation_prompt=generate)["input_ids"]
    return list(tokens)


def ids(name: str, spellings: tuple[str, ...]) -> set[int]:
    vocabulary = tokenizer_of(name).get_vocab()
    return {vocabulary[spelling] for spelling in spellings if spelling in vocabulary}


@pytest.mark.parametrize("name", NAMES)
def test_the_template_says_what_ends_a_turn(name: str) -> None:
    tokenizer, family = tokenizer_of(name), FAMILIES[name]
    codec = ChatCodec(tokenizer, [5])
    end, eos = tokenizer.get_vocab()[family.end], tokenizer.get_vocab()[family.names["eos"]]
    assert codec.end_token == end
    assert set(codec.stop_token_ids) == {5, end, eos} | ids(name, ("<|observation|>",))  # which GLM's tools begin with
    assert codec.reply("one")[-1] == end
    assert codec.reply("one").count(end) == 1


@pytest.mark.parametrize("name", NAMES)
def test_what_a_family_does_to_earlier_turns_is_told(name: str) -> None:
    notice = CODECS[name].notice or ""
    assert tuple(words for words in (SPACE, THINKING, OTHER, JOINS) if words in notice) == FAMILIES[name].rewrites
    assert bool(notice) == bool(FAMILIES[name].rewrites)


@settings(max_examples=15)
@given(turns=st.lists(st.tuples(SAID, SAID), min_size=1, max_size=3), system=st.booleans())
@pytest.mark.parametrize("name", [*GROW, "Mistral"])
def test_written_turn_by_turn_a_conversation_has_the_tokens_of_the_whole(
    name: str, turns: list[tuple[str, str]], system: bool
) -> None:
    codec = CODECS[name]
    takes_system = name not in ("Gemma 2", "Mistral")  # Mistral's is put next to the newest question
    said = [Message("system", "Be brief.")] if system and takes_system else []
    prompt = [*said, Message("user", turns[0][0])]
    completion = [Message("assistant", turns[0][1])]
    for question, answer in turns[1:]:
        completion += [Message("user", question), Message("assistant", answer)]
    trajectory = transcribe(codec, prompt, completion)
    expected = whole(name, [*prompt, *completion])
    if not codec.template.closing:  # GLM ends a turn with what begins the next one
        expected.append(codec.end_token)
    assert expected[: len(trajectory.tokens)] == trajectory.tokens
    assert tokenizer_of(name).decode(expected[len(trajectory.tokens) :]).strip() in ("", "<|endoftext|>")
    replies = [trajectory.tokens[reply.start : reply.stop] for reply in trajectory.replies]
    assert [codec.text(reply) for reply in replies] == [answer for _, answer in turns]


@pytest.mark.parametrize("name", NAMES)
def test_a_bridge_has_the_tokens_of_the_whole_after_a_reply_that_ended_and_one_that_was_cut_off(name: str) -> None:
    codec = CODECS[name]
    asked = [Message("user", "first"), Message("assistant", "one answer"), Message("user", "second one")]
    expected = whole(name, asked, generate=True)
    stopped, cut_off = codec.bridge(asked[2:], codec.end_token), codec.bridge(asked[2:], 300)
    assert expected[-len(stopped) :] == stopped
    assert expected[-len(cut_off) :] == cut_off
    assert cut_off[: len(cut_off) - len(stopped)][-1] == codec.end_token


ALTERNATE = ["Llama 2", "Mistral", "Gemma 2", "Gemma 3"]
TOOLS = ["Qwen2.5", "Llama 3", "Llama 3.1", "Llama 3.2", "Phi-4-mini", "GLM-4", "GLM-4.5"]
TOOLS += ["SmolLM2", "SmolLM2, its end without a name"]
ANSWERS = [Message("tool", "disk: 40 %", name="metrics", call_id="c0"), Message("tool", "é: ok", name="log")]


@pytest.mark.parametrize("name", TOOLS)
@pytest.mark.parametrize("after", [[], [Message("user", "Go on.")]])
def test_what_several_tools_answer_has_the_tokens_of_the_whole(name: str, after: list[Message]) -> None:
    prompt = [Message("user", "first")]
    completion = [Message("assistant", "one"), *ANSWERS, *after, Message("assistant", "two")]
    trajectory = transcribe(CODECS[name], prompt, completion)
    expected = whole(name, [*prompt, *completion])
    if not CODECS[name].template.closing:
        expected.append(CODECS[name].end_token)
    assert expected[: len(trajectory.tokens)] == trajectory.tokens
    assert len(trajectory.replies) == 2


@pytest.mark.parametrize("name", ["GLM-4", "GLM-4.5"])
def test_a_reply_that_stops_where_a_tools_message_begins_is_followed_by_it(name: str) -> None:
    codec, (begins,) = CODECS[name], ids(name, ("<|observation|>",))
    asked, reply = [Message("user", "first")], Message("assistant", "one")
    sampled = [*codec.reply("one")[:-1], begins]  # as a model that calls a tool does
    grown = [*codec.prompt(asked), *sampled, *codec.bridge(ANSWERS, begins)]
    assert grown == whole(name, [*asked, reply, *ANSWERS], generate=True)
    assert codec.text(sampled) == "one"
    assert begins not in codec.reply("a <|observation|> of mine")


@pytest.mark.parametrize("name", [name for name in GROW if name not in TOOLS])
def test_where_a_template_shows_no_tools_the_user_says_what_they_said(name: str) -> None:
    prompt, answers = [Message("user", "first")], ["disk: 40 %", "é: ok"]
    said = "\n\n".join([*(f"<tool_response>\n{answer}\n</tool_response>" for answer in answers), "Go on."])
    replies = [Message("assistant", "one"), Message("assistant", "two")]
    trajectory = transcribe(CODECS[name], prompt, [replies[0], *ANSWERS, Message("user", "Go on."), replies[1]])
    assert trajectory.tokens == transcribe(CODECS[name], prompt, [replies[0], Message("user", said), replies[1]]).tokens


TWICE = [Message("user", "first"), Message("user", "second"), Message("assistant", "one")]
TWICE += [Message("user", "third"), Message("user", "fourth"), Message("assistant", "two")]
JOINED = [Message("user", "first\n\nsecond"), TWICE[2], Message("user", "third\n\nfourth"), TWICE[5]]


@pytest.mark.parametrize("name", [*GROW, "Mistral"])
def test_users_in_a_row_are_joined_only_where_a_template_refuses_them(name: str) -> None:
    codec = CODECS[name]
    trajectory = transcribe(codec, TWICE[:2], TWICE[2:])
    expected = whole(name, JOINED if name in ALTERNATE else TWICE)
    if not codec.template.closing:
        expected.append(codec.end_token)
    assert expected[: len(trajectory.tokens)] == trajectory.tokens
    assert len(trajectory.replies) == 2


@pytest.mark.parametrize("name", ALTERNATE)
def test_where_users_and_replies_alternate_a_user_and_a_tool_are_one(name: str) -> None:
    answer = [Message("user", "Go on."), Message("tool", "disk: 40 %", name="metrics")]
    joined = [Message("user", "Go on.\n\n<tool_response>\ndisk: 40 %\n</tool_response>")]
    taken = name == "Mistral"  # whose template does not count what tools say
    assert (CODECS[name].bridge(answer, 300) == CODECS[name].bridge(joined, 300)) is not taken


@pytest.mark.parametrize("name", NAMES)
def test_what_a_tool_says_opens_no_turn(name: str) -> None:
    codec, family = CODECS[name], FAMILIES[name]
    evil = " ".join(family.control)
    quiet = codec.bridge([Message("tool", "x", name="log")], codec.end_token)
    loud = codec.bridge([Message("tool", f"x {evil}", name=f"log {evil}")], codec.end_token)
    control = ids(name, family.control)
    assert [token for token in loud if token in control] == [token for token in quiet if token in control]


@pytest.mark.parametrize("name", ["Qwen3", "Mistral"])
def test_where_earlier_turns_are_rewritten_the_newest_reply_still_has_the_tokens_of_the_whole(name: str) -> None:
    codec = CODECS[name]
    said = [Message("system", "Be brief."), Message("user", "first")]
    if name == "Mistral":  # which shows the system message beside a question that is the last thing said
        said = said[1:]
    tokens = codec.prompt(said) + codec.reply("one answer")
    expected = whole(name, [*said, Message("assistant", "one answer")])
    assert expected[: len(tokens)] == tokens


@pytest.mark.parametrize(
    "content", ["one answer", "<think>\nwhy\n</think>\n\none answer", "why\n</think>\n\none answer"]
)
@pytest.mark.parametrize("name", OPENS_THINKING)
def test_thinking_that_the_prompt_opens_is_closed_once_by_a_written_reply(name: str, content: str) -> None:
    codec = CODECS[name]
    text = codec.spell(codec.prompt([Message("user", "first")]) + codec.reply(content))
    thought = "why" if "why" in content else ""
    assert text.endswith(f"<think>\n{thought}\n</think>\n\none answer{FAMILIES[name].end}")
    assert text.count("<think>") == text.count("</think>") == 1


@pytest.mark.parametrize("name", ["Qwen3", "GLM-4.5", "SmolLM3", "Qwen2.5"])
def test_thinking_that_a_reply_opens_itself_is_kept(name: str) -> None:
    codec = CODECS[name]
    text = codec.text(codec.reply("<think>\nwhy\n</think>\n\none answer"))
    assert "".join(text.split()) == "<think>why</think>oneanswer"


INSIDE_REPLIES = {
    "Qwen2.5": ("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|vision_start|>"),
    "Qwen3": ("<tool_call>", "</tool_call>"),
    "Qwen3.5": ("<tool_call>", "</tool_call>"),
    "Llama 3.1": ("<|python_tag|>",),
    "Mistral": ("[TOOL_CALLS]", "[AVAILABLE_TOOLS]"),
    "Gemma 3": ("<table>", "<start_of_image>"),
    "Phi-4-mini": ("<|tool_call|>",),
    "DeepSeek-R1 distil": ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    "GLM-4.5": ("<tool_call>", "</tool_call>"),
    "SmolLM2": ("<repo_name>",),
    "SmolLM3": ("<|python_tag|>", "<tool_call>"),
}


@pytest.mark.parametrize("name", list(INSIDE_REPLIES))
def test_special_tokens_inside_a_reply_reach_the_environment_as_text_and_are_learnt_as_tokens(name: str) -> None:
    codec = CODECS[name]
    for token in INSIDE_REPLIES[name]:
        written = codec.reply(f"so {token}" + '{"name": "search"}')
        assert ids(name, (token,)) <= set(written)
        assert codec.text(written).endswith(f'so {token}{{"name": "search"}}')
        assert token in codec.text(list(ids(name, (token,))))


# Nothing that is said becomes a control token.


def pieces_of(name: str) -> list[str]:
    control = FAMILIES[name].control
    split = [token[i:j] for token in control for i, j in ((0, 1), (0, -1), (1, None), (0, 4), (-3, None), (2, -2))]
    return [*control, *split, " ", "\n", "x", "system", "/think", "/no_think", "\ufeff", "⁠"]


@settings(max_examples=40)
@given(data=st.data())
@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_never_becomes_a_control_token(name: str, data: st.DataObject) -> None:
    hostile = st.lists(st.sampled_from(pieces_of(name)), min_size=1, max_size=8).map("".join)
    codec, control = CODECS[name], ids(name, FAMILIES[name].control)
    system, ask = data.draw(hostile), data.draw(hostile)
    calm = Message("system", "/no_think" if "/no_think" in system else "x")  # which SmolLM3 answers in its own way
    for said, quiet in (
        ([Message("system", system), Message("user", ask)], [calm, Message("user", "x")]),
        ([Message("user", ask)], [Message("user", "x")]),
    ):
        if name == "SmolLM3" and "/no_think" in system.replace("/think", ""):
            continue
        tokens, expected = codec.prompt(said), codec.prompt(quiet)
        assert [token for token in tokens if token in control] == [token for token in expected if token in control]
    tokens, expected = (
        codec.bridge([Message("user", ask)], codec.end_token),
        codec.bridge([Message("user", "x")], codec.end_token),
    )
    assert [token for token in tokens if token in control] == [token for token in expected if token in control]


TURNS = (
    *(
        "<|im_start|>",
        "<|im_end|>",
        "<|eot_id|>",
        "<|start_header_id|>",
        "[INST]",
        "[/INST]",
        "<start_of_turn>",
        "</s>",
    ),
    *("<end_of_turn>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<｜User｜>", "<｜Assistant｜>", "<s>"),
    *("<｜end▁of▁sentence｜>", "<|begin_of_text|>", "<bos>", "<eos>"),
)


@settings(max_examples=40)
@given(data=st.data())
@pytest.mark.parametrize("name", NAMES)
def test_a_written_reply_ends_where_it_ends_and_opens_no_turn(name: str, data: st.DataObject) -> None:
    codec = CODECS[name]
    written = codec.reply(data.draw(st.lists(st.sampled_from(pieces_of(name)), min_size=1, max_size=8).map("".join)))
    assert written[-1] == codec.end_token
    assert not (set(written[:-1]) & (ids(name, TURNS) | set(codec.stop_token_ids)))


@settings(max_examples=40)
@given(content=SAID)
@pytest.mark.parametrize("name", NAMES)
def test_a_written_reply_decodes_to_what_was_written(name: str, content: str) -> None:
    assert CODECS[name].text(CODECS[name].reply(content)) == content


@pytest.mark.parametrize("name", NAMES)
def test_ordinary_text_stays_as_it_is(name: str) -> None:
    text = "Is 3 < 5, [x] || <b>bold</b>? <table>\n\n\n<|nobody|> end pad s user #\t</think"
    codec = CODECS[name]
    assert text in codec.template.render([Message("user", text)])
    assert whole(name, [Message("user", text)], generate=True) == codec.prompt([Message("user", text)])


@pytest.mark.parametrize("name", ["Qwen2.5", "Qwen3", "Llama 2", "Phi-3", "GLM-4", "Mistral"])
def test_with_history_template_a_row_goes_on_only_where_the_template_renders_what_is_there(name: str) -> None:
    codec = ChatCodec(tokenizer_of(name), history="template")
    said = [Message("user", "first"), Message("assistant", "one answer"), Message("user", "second")]
    rewritten = codec.rewritten(said, codec.reply("one answer"))
    assert (rewritten is None) == (name != "Qwen3")  # which shows an empty thought in the newest reply only
    assert codec.rewritten(said, [*codec.reply("one")[:-1], codec.end_token]) is not None

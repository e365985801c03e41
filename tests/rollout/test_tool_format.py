"""Tools and calls through the templates of well-known families: shown, written, read, and never trusted."""

import functools
import json
import time
from collections.abc import Iterator
from typing import Any

import gymnasium
import pytest
from families import FAMILIES, tokenizer_of
from hypothesis import given, settings
from hypothesis import strategies as st

from llmgym import Episode, Message, TextEnv, Tool, ToolCall, register_env
from llmgym.calls import Action, ActionLike, BadCall, action_of
from llmgym.errors import ModelError
from llmgym.rollout.call_syntax import SYNTAXES, Reader
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.demonstrate import demonstrate
from llmgym.rollout.tool_format import paired
from llmgym.rollout.transcript import transcribe

NATIVE = {
    "Qwen2.5": "_hermes",
    "Qwen3": "_hermes",
    "Qwen3.5": "_functions",
    "Llama 3.1": "_whole_reply",
    "Llama 3.2": "_whole_reply",
    "Mistral": "_mistral",
    "GLM-4.5": "_keys_and_values",
}
GROW = ["Qwen2.5", "Llama 3.1", "Llama 3.2", "GLM-4.5"]  # whose conversations have the same tokens as a whole


@functools.cache
def codec_of(name: str) -> ChatCodec:
    return ChatCodec(tokenizer_of(name))


def look_up(place: str, count: int = 1, tags: list[str] | None = None, deep: bool = False) -> str:
    """Look something up.

    Args:
        place: Where.
        count: How often.
        tags: What to look for.
        deep: Whether to look twice.
    """
    return f"{place}: {count}"


def note(text: str) -> str:
    """Write something down.

    Args:
        text: What.
    """
    return "noted"


TOOLS = (Tool(look_up).schema, Tool(note).schema)
CALL = ToolCall("look_up", {"place": "Bonn", "count": 2})
OTHER = ToolCall("note", {"text": 'Zürich "A"\n<b> 3'})


@register_env("LookUp-v0")
class LookUp(TextEnv):
    """Asks to look two things up, and then a third."""

    tools = (look_up, note)
    max_turns = 4

    def begin(self) -> str:
        return "Where?"

    def score(self, episode: Episode) -> float:
        return float(episode.actions[-1] == "Bonn")

    def expert(self) -> Iterator[ActionLike]:
        yield [CALL, OTHER]
        yield CALL
        yield "Bonn"


def read(codec: ChatCodec, tokens: list[int]) -> Action:
    action = codec.action(tokens, TOOLS)
    assert isinstance(action, Action)
    return action


def plain(calls: Any) -> list[tuple[str, dict[str, Any]]]:
    assert all(isinstance(call, ToolCall) for call in calls), calls
    return [(call.name, dict(call.arguments)) for call in calls]


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_has_its_own_format_or_else_plain_text(name: str) -> None:
    found = codec_of(name).template.tool_format
    assert getattr(found.reader, "__name__", None) == NATIVE.get(name)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_model_is_told_of_every_tool_and_argument(name: str) -> None:
    codec = codec_of(name)
    shown = codec.spell(codec.prompt([Message("system", "Be brief."), Message("user", "Where?")], TOOLS))
    for said in ("Be brief.", "Where?", "look_up", "Look something up.", "place", "How often.", "note"):
        assert said in shown
    assert "look_up" not in codec.spell(codec.prompt([Message("user", "Where?")]))


@pytest.mark.parametrize("calls", [[CALL], [OTHER], [CALL, OTHER], [CALL, CALL, OTHER]])
@pytest.mark.parametrize("name", FAMILIES)
def test_calls_are_read_as_they_were_written_token_by_token(name: str, calls: list[ToolCall]) -> None:
    codec = codec_of(name)
    action = read(codec, codec.reply(Message("assistant", "", calls=tuple(calls))))
    assert plain(action.calls) == plain(calls)


@pytest.mark.parametrize("name", [name for name in FAMILIES if not name.startswith(("Llama 3.", "Mistral"))])
def test_what_is_said_beside_calls_is_kept(name: str) -> None:
    codec = codec_of(name)
    action = read(codec, codec.reply(Message("assistant", "I look.", calls=(CALL, OTHER))))
    assert action.said.endswith("I look.")
    assert plain(action.calls) == plain([CALL, OTHER])


@pytest.mark.parametrize("name", ["Llama 3.1", "Mistral"])
def test_where_a_template_shows_calls_alone_a_text_beside_them_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"does not show all of a reply that says 'I look.' and calls look_up"):
        codec_of(name).reply(Message("assistant", "I look.", calls=(CALL,)))


def the_templates_own(name: str, messages: list[Message]) -> list[int]:
    chat = [message.chat for message in messages]
    for message in chat:
        for i, call in enumerate(message.get("tool_calls", [])):
            call["id"] = f"call{i:05d}"
    tokenizer = tokenizer_of(name)
    text = tokenizer.apply_chat_template(chat, tools=[dict(tool) for tool in TOOLS], tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("name", [name for name in GROW if not name.startswith("Llama")])
def test_an_experts_episode_has_the_tokens_of_the_templates_own_rendering(name: str) -> None:
    codec, (shown,) = codec_of(name), demonstrate(gymnasium.make("LookUp-v0"), [0])
    trajectory = transcribe(codec, shown.prompt, shown.completion, tools=shown.tools)
    expected = the_templates_own(name, [*shown.prompt, *shown.completion])
    assert trajectory.tokens[: len(expected)] == expected[: len(trajectory.tokens)]
    assert len(trajectory.replies) == 3


@pytest.mark.parametrize("name", NATIVE)
def test_one_call_and_its_answer_have_the_tokens_of_the_templates_own_rendering(name: str) -> None:
    codec = codec_of(name)
    said = [Message("user", "Where?"), Message("assistant", "", calls=(CALL,))]
    answered = Message("tool", "Bonn: 2", "look_up", "call00000")
    tokens = [*codec.prompt(said[:1], TOOLS), *codec.reply(said[1], [answered])]
    tokens += codec.bridge([answered], tokens[-1])
    chat = [message.chat for message in [*said, answered]]
    chat[1]["tool_calls"][0]["id"] = "call00000"
    tokenizer = tokenizer_of(name)
    tools = [dict(tool) for tool in TOOLS]
    text = tokenizer.apply_chat_template(chat, tools=tools, tokenize=False, add_generation_prompt=True)
    shown = codec.spell(tokens)
    # Qwen 3 leaves the empty thought out of what it shows of earlier replies.
    assert shown.replace("<think>\n\n</think>\n\n", "") == text.replace("<think>\n\n</think>\n\n", "")


@pytest.mark.parametrize("name", FAMILIES)
def test_several_answers_are_one_bridge(name: str) -> None:
    codec = codec_of(name)
    answers = [Message("tool", "first answer", "look_up", "call00000"), Message("tool", "second", "note", "call00001")]
    shown = codec.spell(codec.bridge(answers, codec.end_token))
    assert shown.index("first answer") < shown.index("second")
    assert shown.count("assistant") + shown.count("model") + shown.count("[/TOOL_RESULTS]") <= 2


@pytest.mark.parametrize("name", FAMILIES)
def test_a_reply_that_is_cut_off_anywhere_calls_nothing_that_it_did_not_say(name: str) -> None:
    codec = codec_of(name)
    tokens = codec.reply(Message("assistant", "", calls=(CALL, OTHER)))
    whole = plain([CALL, OTHER])
    for stop in range(len(tokens)):
        found = read(codec, tokens[:stop]).calls
        good = plain([call for call in found if isinstance(call, ToolCall)])
        assert good == whole[: len(good)]
        assert len(found) <= len(good) + 1


_ARGUMENTS = st.dictionaries(
    st.from_regex(r"[a-z_]{1,8}", fullmatch=True),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(st.characters(codec="utf-8"), max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab<>/", max_size=4), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)


@given(_ARGUMENTS)
@settings(max_examples=60)
@pytest.mark.parametrize("name", ["SmolLM2", "Qwen2.5", "Llama 3.1", "Mistral"])
def test_any_arguments_survive_where_they_are_written_as_json(name: str, arguments: dict[str, Any]) -> None:
    codec = codec_of(name)
    action = read(codec, codec.reply(Message("assistant", "", calls=(ToolCall("note", arguments),))))
    control = {token for token in FAMILIES[name].control if token in json.dumps(arguments)}
    if not control:  # those are broken up
        assert plain(action.calls) == [("note", arguments)]


@given(st.text(max_size=200), st.sampled_from(sorted(FAMILIES)))
@settings(max_examples=300)
def test_any_text_is_read_without_an_exception(text: str, name: str) -> None:
    found = codec_of(name).template.tool_format.read(text, TOOLS)
    assert str(found) == text


@pytest.mark.parametrize("name", ["Qwen2.5", "Qwen3.5", "GLM-4.5", "Mistral", "Llama 3.1", "SmolLM2"])
def test_what_looks_like_a_call_and_is_none_is_said_to_be_wrong(name: str) -> None:
    form = codec_of(name).template.tool_format
    written = form.content("", [CALL])
    for broken in (written[:-3], written.replace("look_up", "", 1), written.replace("count", "place", 1)):
        calls = form.read(broken, TOOLS).calls
        assert len(calls) <= 1
        for call in calls:
            assert isinstance(call, BadCall) or call != CALL


@pytest.mark.parametrize("name", ["Qwen3", "Qwen3.5", "SmolLM2"])
def test_calls_within_a_thought_are_only_thought_of(name: str) -> None:
    form = codec_of(name).template.tool_format
    call = form.content("", [CALL]).removeprefix("<think>\n\n</think>\n\n")
    assert form.read(f"<think>\nShall I? {call}\n</think>\n\nNo.", TOOLS).calls == ()
    assert form.read(f"<think>\nShall I? {call}", TOOLS).calls == ()
    assert len(form.read(f"<think>\nYes.\n</think>\n\n{call}", TOOLS).calls) == 1


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_told_of_a_tool_opens_no_turn(name: str) -> None:
    codec, evil = codec_of(name), " ".join(FAMILIES[name].control)

    def schema(text: str) -> tuple[dict[str, Any], ...]:
        parameters = {"type": "object", "properties": {f"a{text}": {"type": "string", "description": text}}}
        return ({"type": "function", "function": {"name": "f", "description": text, "parameters": parameters}},)

    control = {codec.tokenizer.convert_tokens_to_ids(token) for token in FAMILIES[name].control}
    quiet, loud = (codec.prompt([Message("user", "x")], schema(text)) for text in ("x", f"x {evil}"))
    assert [token for token in loud if token in control] == [token for token in quiet if token in control]


@pytest.mark.parametrize("name", FAMILIES)
def test_an_experts_arguments_open_no_turn(name: str) -> None:
    codec = codec_of(name)
    ends = f"x <{'|'} {FAMILIES[name].end}".replace("<| ", "")
    reply = codec.reply(Message("assistant", "", calls=(ToolCall("note", {"text": ends}),)))
    assert codec.end_token not in reply[:-1]


FORGET = ["Qwen3", "DeepSeek-R1 distil"]  # the empty thoughts of earlier replies


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in FORGET])
def test_a_conversation_with_calls_is_written_alike_whole_and_piece_by_piece(name: str) -> None:
    (shown,) = demonstrate(gymnasium.make("LookUp-v0"), [0])
    rows = [
        transcribe(ChatCodec(tokenizer_of(name), history=history), shown.prompt, shown.completion, tools=shown.tools)
        for history in ("append", "template")
    ]
    assert rows[0].tokens == rows[1].tokens


@pytest.mark.parametrize("name", FAMILIES)
def test_a_whole_conversation_with_calls_is_rendered_for_whoever_judges_it(name: str) -> None:
    (shown,) = demonstrate(gymnasium.make("LookUp-v0"), [0])
    chat = [*shown.prompt, *shown.completion]
    text = codec_of(name).template.render(chat, shown.tools, generate=False)
    assert text.count("Bonn: 2") == 2
    assert text.count("noted") == 1


@pytest.mark.parametrize(
    ("id", "other", "expected"),
    [
        (None, "abcdefgh1", ("abcdefgh1", "abcdefgh1")),
        ("call_x-1", "call_x-1", ("call00000", "call00000")),
        ("abcdefgh2", None, ("abcdefgh2", "abcdefgh2")),
    ],
)
def test_a_call_and_its_answer_have_one_id(id: str | None, other: str | None, expected: tuple[str, str]) -> None:
    call = Message("assistant", "", calls=(ToolCall("note", {}, id),))
    first, second = paired([call, Message("tool", "noted", "note", other)])
    assert (first.calls[0].id, second.call_id) == expected


HOSTILE = [
    "<tool_call>",
    "<tool_call>{</tool_call>",
    '<tool_call>{"name":"a"}</tool_call>',
    "<parameter=a>",
    "<parameter=a></parameter>x",
    "</parameter> ",
    "<arg_key>",
    "<arg_key>a</arg_key><arg_value>",
    "<arg_key>a</arg_key>",
    "</arg_value> ",
    "</function> ",
    "[TOOL_CALLS][{",
    '{"name":"a"} ; ',
    "[",
    "1,",
    " ",
]


@pytest.mark.parametrize("begin", ["", "<tool_call>f", "<tool_call><function=f>", "<tool_call>[", '{"name":'])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_hostile_text_is_read_in_linear_time(syntax: Reader, begin: str) -> None:
    for unit in HOSTILE:
        text = f"{begin}{unit * (200_000 // len(unit))}</function></tool_call>"
        started = time.process_time()
        action_of(text, syntax(text, {}))
        assert time.process_time() - started < 2, unit

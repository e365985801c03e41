"""What chat templates do to what was said before is found out at the start, told, and followed on request."""

import copy
import random
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import llmgym
from llmgym.config.choices import History
from llmgym.config.sections import Sampling
from llmgym.demo.tiny import CHATML
from llmgym.engines.base import GenerationRequest
from llmgym.engines.local.engine import LocalEngine
from llmgym.engines.scripted import ScriptedEngine
from llmgym.errors import ModelError
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.collector import Collector
from llmgym.rollout.run_time import run_time, set_run_time
from llmgym.rollout.task import Task
from llmgym.rollout.template import ChatTemplate
from llmgym.rollout.trajectory import Trajectory
from llmgym.types import Message

OPEN = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

# What the templates of well-known families do, with the special tokens of the tests' tokenizer.
TEMPLATES = {
    "ChatML": CHATML,
    "default system prompt, as Qwen2.5": (
        "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + OPEN
    ),
    "drops earlier thinking, as Qwen3": (
        "{% set ns = namespace(last=0) %}{% for m in messages %}"
        "{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.index0 < ns.last and '</think>' in m.content %}"
        "{{ m.content.split('</think>')[-1].lstrip('\n') }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
        + OPEN
    ),
    "opens thinking itself, as DeepSeek-R1": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    ),
    "strips, as Llama 3": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}" + OPEN
    ),
    "another name and no system, as Gemma": (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}<|im_start|>"
        "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
    ),
    "system beside the newest question, as Mistral": (
        "{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}{% endif %}"
        "{% for m in messages %}{% if m.role == 'user' %}[I] {{ system if loop.last }}{{ m.content }} [/I]"
        "{% elif m.role == 'assistant' %} {{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    ),
}


def codec_of(tokenizer: PreTrainedTokenizerFast, template: str, history: History = "append") -> ChatCodec:
    own = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=template,
    )
    return ChatCodec(own, history=history)


def rendered(codec: ChatCodec, messages: list[Message]) -> str:
    """The tokenizer's own rendering, without any of ours."""
    chat = [{"role": m.role, "content": m.content} for m in messages]
    return str(codec.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))


THINKING, SPACE, OTHER = "thinking of earlier replies", "white space around replies", "earlier messages in another way"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ChatML", []),
        ("default system prompt, as Qwen2.5", []),
        ("drops earlier thinking, as Qwen3", [THINKING]),
        ("opens thinking itself, as DeepSeek-R1", [THINKING, OTHER]),
        ("strips, as Llama 3", [SPACE]),
        ("another name and no system, as Gemma", [SPACE]),
        ("system beside the newest question, as Mistral", [OTHER]),
    ],
)
def test_what_a_template_does_to_earlier_turns_is_told(
    tokenizer: PreTrainedTokenizerFast, name: str, told: list[str]
) -> None:
    notice = codec_of(tokenizer, TEMPLATES[name]).notice
    assert (notice is None) == (not told)
    assert [words for words in (THINKING, SPACE, OTHER) if words in (notice or "")] == told
    if notice:
        assert "This is not followed (history append)" in notice
        followed = codec_of(tokenizer, TEMPLATES[name], "template").notice
        assert followed is not None
        assert "This is followed (history template)" in followed


def test_the_notice_quotes_what_was_said_and_what_becomes_of_it(tokenizer: PreTrainedTokenizerFast) -> None:
    notice = codec_of(tokenizer, TEMPLATES["drops earlier thinking, as Qwen3"]).notice
    assert notice is not None
    assert r"('<think>\nHm.\n</think>\n\n' becomes '')" in notice


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (TEMPLATES["ChatML"].replace("add_generation_prompt", "false"), r"puts '<\|im_start\|>assistant\\n' before a"),
        ("{{ messages[-1].content }}{{ '>' if add_generation_prompt }}", "does not show the assistant's replies"),
        (
            "{% if messages | selectattr('role', 'equalto', 'user') | list | length > 1 %}"
            "{{ raise_exception('one turn only') }}{% endif %}" + CHATML,
            "does not render: one turn only",
        ),
    ],
    ids=["opens no reply", "hides replies", "knows one turn"],
)
def test_a_template_that_does_not_fit_several_turns_is_refused(
    tokenizer: PreTrainedTokenizerFast, template: str, message: str
) -> None:
    for history in ("append", "template"):
        with pytest.raises(ModelError, match=message):
            codec_of(tokenizer, template, history)  # type: ignore[arg-type]


def test_a_tokenizer_that_joins_a_reply_with_what_follows_is_reported(tokenizer: PreTrainedTokenizerFast) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = dict(tokenizer.get_vocab())
    vocabulary["e#"] = len(vocabulary)
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[("e", "#")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    joining = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|im_end|>",
        chat_template="{% for m in messages %}{{ m.content }}#{% endfor %}",
    )
    notice = ChatCodec(joining).notice
    assert notice is not None
    assert "joins a reply with the text around it" in notice


# Whole episodes.


class Echo(llmgym.TextEnv):
    """Talks for one to five turns, by its seed."""

    system_prompt = "Talk."

    def begin(self) -> str:
        self.episode.task = int(self.np_random.integers(1, 6))
        return f"talk {self.episode.task}"

    def respond(self, action: str) -> str | None:
        left = self.episode.task - len(self.episode.turns)
        return f"{left} left" if left else None

    def score(self, episode: llmgym.Episode) -> float:
        return float(len(episode.turns))


class Thinker(ScriptedEngine):
    """Replies with what `texts` draws, and notes what it was asked to go on from."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, texts: list[str], **options: Any) -> None:
        self.contexts: dict[int, list[list[int]]] = {}

        def reply(request: GenerationRequest) -> list[int]:
            self.contexts.setdefault(request.episode_id, []).append(list(request.tokens))
            text = random.Random(request.seed).choice(texts)
            # Special tokens are spelled out, as a model can do too.
            return [*tokenizer(text, split_special_tokens=True)["input_ids"], tokenizer.eos_token_id]

        super().__init__(reply, **options)


def play(codec: ChatCodec, engine: Any, episodes: int = 12, **sampling: Any) -> list[Trajectory]:
    envs = llmgym.TextVectorEnv([Echo] * 5)
    return Collector(envs, codec, engine).collect(
        [Task(seed, seed) for seed in range(episodes)], Sampling(**{"max_tokens": 60, **sampling})
    )


TEXTS = st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=4)


@settings(max_examples=25)
@given(texts=TEXTS)
@pytest.mark.parametrize("name", ["ChatML", "default system prompt, as Qwen2.5"])
def test_where_nothing_is_rewritten_both_histories_give_the_same_tokens(
    tokenizer: PreTrainedTokenizerFast, name: str, texts: list[str]
) -> None:
    texts = [*texts, "a<|im_end|>", "<think>a</think>b"]
    append, template = (
        play(codec_of(tokenizer, TEMPLATES[name], history), Thinker(tokenizer, texts))
        for history in ("append", "template")
    )
    assert any("<|im_end|>" in m.content for trajectory in append for m in trajectory.messages)
    assert append == template
    assert all(trajectory.row_starts == [0] for trajectory in append)


@settings(max_examples=25)
@given(texts=TEXTS)
def test_a_template_that_may_rewrite_but_finds_no_cause_gives_the_same_tokens_too(
    tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> None:
    template = TEMPLATES["drops earlier thinking, as Qwen3"]
    texts = [text.replace("</think>", "") for text in texts]
    append, followed = (
        play(codec_of(tokenizer, template, history), Thinker(tokenizer, texts)) for history in ("append", "template")
    )
    assert append == followed


THOUGHTS = ["<think>\nwhy\n</think>\n\nfirst", "plain", " spaced ", "so</think>\nthat", "日志 é"]


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "another name and no system, as Gemma"])
def test_with_history_template_every_reply_is_sampled_after_what_the_template_renders(
    tokenizer: PreTrainedTokenizerFast, name: str
) -> None:
    codec = codec_of(tokenizer, TEMPLATES[name], "template")
    engine = Thinker(tokenizer, THOUGHTS)
    for episode, trajectory in enumerate(play(codec, engine)):
        asked = [i for i, message in enumerate(trajectory.messages) if message.role == "assistant"]
        expected = [rendered(codec, trajectory.messages[:i]) for i in asked]
        assert [codec.tokenizer.decode(tokens) for tokens in engine.contexts[episode]] == expected


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_the_rows_of_an_episode_are_its_longest_stretches_that_only_grow(
    tokenizer: PreTrainedTokenizerFast, name: str
) -> None:
    codec = codec_of(tokenizer, TEMPLATES[name], "template")
    engine = Thinker(tokenizer, THOUGHTS)
    trajectories = play(codec, engine, episodes=20)
    for episode, trajectory in enumerate(trajectories):
        # The replies, each behind what it was asked to go on from; a new row where the next context does not.
        stretches: list[list[int]] = []
        for context, reply in zip(engine.contexts[episode], trajectory.replies, strict=True):
            if not stretches or context[: len(stretches[-1])] != stretches[-1]:
                stretches.append([])
            stretches[-1] = [*context, *trajectory.tokens[reply.start : reply.stop]]
        assert [trajectory.tokens[row] for row in trajectory.rows] == stretches
        sampled = [i for reply in trajectory.replies for i in range(reply.start, reply.stop)]
        assert [i for i, is_sampled in enumerate(trajectory.mask) if is_sampled] == sampled
        assert trajectory.sampled_tokens == len(sampled)
        assert all(
            (log_prob == 0.0) != is_sampled
            for log_prob, is_sampled in zip(trajectory.log_probs, trajectory.mask, strict=True)
        )
    rewrites = max(len(trajectory.row_starts) for trajectory in trajectories) > 1
    assert rewrites == (codec.notice is not None)


@pytest.mark.parametrize(
    ("history", "thought", "context_length", "endings"),
    [
        ("append", "hm " * 20, 300, {"terminated", "context"}),
        ("template", "hm " * 20, 300, {"terminated"}),
        ("template", "hm", 150, {"terminated", "context"}),
    ],
)
def test_a_rewritten_conversation_ends_where_its_own_length_fills_the_context(
    history: History, thought: str, context_length: int, endings: set[str], tokenizer: PreTrainedTokenizerFast
) -> None:
    codec = codec_of(tokenizer, TEMPLATES["drops earlier thinking, as Qwen3"], history)
    engine = Thinker(tokenizer, [f"<think>{thought}</think>fine"], context_length=context_length)
    trajectories = play(codec, engine, max_tokens=90)
    assert {trajectory.ending for trajectory in trajectories} == endings
    for trajectory in trajectories:
        assert all(row.stop - row.start <= context_length for row in trajectory.rows)
        assert all(reply.stop > reply.start for reply in trajectory.replies)


def test_the_embedded_engine_follows_a_rewritten_conversation(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    shortened = CHATML.replace(
        "message['content']", "(message['content'][:7] if not loop.last else message['content'])"
    )
    codec = codec_of(tokenizer, shortened, "template")
    runs = [play(codec, LocalEngine(model, max_running=rows), max_tokens=10) for rows in (1, 8)]
    assert [trajectory.tokens for trajectory in runs[0]] == [trajectory.tokens for trajectory in runs[1]]
    assert max(len(trajectory.row_starts) for trajectory in runs[0]) > 2


# What does not fit.

SAYS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + OPEN


@pytest.mark.parametrize(
    "template",
    [
        SAYS.replace("for m in messages", "for m in messages if m.role != 'system'"),
        "<|im_start|>system\nYou help.<|im_end|>\n"
        + SAYS.replace("for m in messages", "for m in messages if m.role != 'system'"),
        SAYS.replace("for m in messages", "for m in messages if m.role != 'system' or messages | length < 3"),
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + SAYS,
    ],
    ids=["drops it", "has a fixed one", "drops it later", "refuses it"],
)
def test_a_system_prompt_that_the_template_does_not_show_goes_to_the_first_user(
    tokenizer: PreTrainedTokenizerFast, template: str
) -> None:
    codec = codec_of(tokenizer, template)
    text = codec.template.render([Message("system", "Be brief."), Message("user", "hello")])
    assert text.endswith("<|im_start|>user\nBe brief.\n\nhello<|im_end|>\n<|im_start|>assistant\n")
    assert text.count("Be brief.") == 1


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (SAYS.replace("{{ m.role }}", "user"), "shows the assistant's replies as the assistant's"),
        (
            SAYS.replace("{{ m.role }}", "{{ 'user' if loop.index0 % 2 == 0 else 'assistant' }}"),
            "shows the assistant's replies as the assistant's",
        ),
        (SAYS.replace("for m in messages", "for m in messages if m.role != 'assistant'"), "does not show the assist"),
        (SAYS.replace("for m in messages", "for m in messages[-3:]"), "does not show the assistant's replies"),
    ],
    ids=["all are users", "roles by place", "drops it", "drops early ones"],
)
def test_a_template_that_shows_replies_as_somebody_elses_or_not_at_all_is_refused(
    tokenizer: PreTrainedTokenizerFast, template: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        codec_of(tokenizer, template)


@pytest.mark.parametrize(
    "broken",
    [
        "{{ 1 / 0 }}",
        "{{ 1 + 'a' }}",
        "{% include 'x' %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% if %}",
    ],
)
def test_whatever_a_template_raises_is_said_in_a_sentence_that_names_it(
    tokenizer: PreTrainedTokenizerFast, broken: str
) -> None:
    own = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|im_end|>", chat_template=SAYS + broken
    )
    own.name_or_path = "some/model"
    with pytest.raises(ModelError, match=r"chat template of 'some/model' does not render"):
        ChatCodec(own)


@pytest.mark.parametrize("template", [{"tool_use": SAYS, "rag": SAYS}, 7], ids=["no default", "a number"])
def test_several_templates_without_a_default_and_none_that_is_a_text_are_refused(
    tokenizer: PreTrainedTokenizerFast, template: Any
) -> None:
    own = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|im_end|>")
    own.chat_template = template
    with pytest.raises(ModelError, match="chat template"):
        ChatCodec(own)


# What tools' messages are called.

CALLED = SAYS.replace("{{ m.content }}", "{% if m.role == 'tool' %}from {{ m.name }}: {% endif %}{{ m.content }}")
CALLS = {
    "written": CALLED,
    "joined": CALLED.replace("from {{ m.name }}: ", "{{ 'from ' + m.name + ': ' }}"),
    "by its key": CALLED.replace("m.name", "m['name']"),
    "got": CALLED.replace("m.name", "m.get('name')"),
}
ASKED = [Message("user", "x"), Message("assistant", "y")]


@pytest.mark.parametrize("template", CALLS.values(), ids=CALLS.keys())
def test_a_tools_message_without_the_name_that_a_template_shows_is_refused(
    tokenizer: PreTrainedTokenizerFast, template: str
) -> None:
    codec = codec_of(tokenizer, template)
    assert "tool\nfrom metrics: 40 %" in codec.template.render([*ASKED, Message("tool", "40 %", name="metrics")])
    expected = r"shows the name of a tool's message: expected Message\('tool', ..., name='...'\), got one without"
    with pytest.raises(ModelError, match=expected):
        codec.template.render([*ASKED, Message("tool", "40 %")])
    by_call = codec_of(tokenizer, template.replace("name", "tool_call_id"))
    with pytest.raises(ModelError, match=r"shows the tool_call_id of .* call_id='...'\), got one without"):
        by_call.template.render([*ASKED, Message("tool", "40 %", name="metrics")])


@pytest.mark.parametrize("asks", ["m.name", "m.name is defined", "'name' in m", "m.get('name')"])
def test_a_template_that_asks_whether_there_is_a_name_takes_a_message_without(
    tokenizer: PreTrainedTokenizerFast, asks: str
) -> None:
    shows = f"{{% if {asks} %}}from {{{{ m.name }}}}: {{% endif %}}"
    codec = codec_of(tokenizer, CALLED.replace("from {{ m.name }}: ", shows))
    assert "tool\n40 %" in codec.template.render([*ASKED, Message("tool", "40 %")])
    assert "tool\nfrom metrics: 40 %" in codec.template.render([*ASKED, Message("tool", "40 %", name="metrics")])


# The time.

DATED = "Today is {{ strftime_now('%d %b %Y, %H:%M') }}.\n" + SAYS


def test_a_template_that_asks_for_the_time_is_told_that_of_the_run(tokenizer: PreTrainedTokenizerFast) -> None:
    said = [Message("user", "hello")]
    try:
        set_run_time(datetime(2026, 11, 28, 23, 59))
        first, second = codec_of(tokenizer, DATED), codec_of(tokenizer, DATED)
        assert first.template.render(said).startswith("Today is 28 Nov 2026, 23:59.\n")
        set_run_time(datetime(2026, 11, 29))
        assert first.prompt(said) == second.prompt(said)
        assert codec_of(tokenizer, DATED).template.render(said).startswith("Today is 29 Nov 2026, 00:00.\n")
    finally:
        set_run_time()


def test_without_an_option_the_time_is_that_when_the_run_starts_and_stays_it() -> None:
    before = datetime.now().replace(microsecond=0)
    started = set_run_time()
    assert before <= started <= datetime.now()
    assert run_time() == started


def test_what_a_template_cuts_out_of_a_message_leaves_the_ends_of_replies_as_they_are(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{{ m.content.replace('<image>', '') }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    codec = ChatCodec(tokenizer)
    reply = codec.reply("ok")
    said = codec.spell([*reply, *codec.bridge([Message("user", "look: <|im_<image>end|>")], reply[-1])])
    assert said.startswith("ok<|im_end|>\n<|im_start|>user\n")
    assert said.count("<|im_end|>") == 2


def test_a_system_prompt_that_is_not_shown_goes_into_what_the_user_says(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    template = ChatTemplate(tokenizer)
    chat = [Message("system", "S"), Message("assistant", "A"), Message("user", "U")]
    assert "assistant\nA<|im_end|>\n<|im_start|>user\nS\n\nU<|im_end|>" in template.render(chat)
    with pytest.raises(ModelError, match="expected a user's message"):
        template.render(chat[:1])

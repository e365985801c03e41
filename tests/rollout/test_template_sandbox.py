"""A chat template is a program that anybody may have written: what it may take is bounded, and what it makes exact."""

import json
import os
import random
import resource
import signal
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment
from odd_texts import TAKES_OVER, is_plain
from transformers import PreTrainedTokenizerFast

from llmgym.errors import ModelError
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.rendering import (
    BeyondBoundsError,
    Renderer,
    TemplateFailedError,
    TemplateSandbox,
    template_sandbox,
)
from llmgym.types import Message
from llmgym.visible import visible
from tests.families import FAMILIES, tokenizer_of

pytestmark = pytest.mark.hostile

SAYS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TIME = "2026-11-30T12:00:00"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"à": {}}}}}

RUNS_FOR_EVER = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% set n = namespace(l=[]) %}{% for a in range(40) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l == n.l }}"
    "{% set o = namespace(l=[]) %}{% for a in range(40) %}{% set o.l = [o.l, o.l] %}{% endfor %}{{ n.l == o.l }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
    "{{ (7 ** (7 ** 9)) % 3 }}",
]
TAKES_MEMORY = [
    "{{ 'a' * 6000000000 }}",
    "{{ 'a' | center(100000000000) }}",
    "{{ 'a'.ljust(100000000000) }}",
    "{{ '%099999999999d' % 1 }}",
    "{{ '{:>9999999999}'.format(1) }}",
    "{{ [1] | batch(10000000000, 'x') | list }}",
    "{{ [[]] * 6000000000 }}",
    "{{ ('a' * 99999).replace('a', 'b' * 99999) }}",
    "{% set n = namespace(s='abcdefgh') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
    "{{ (1).to_bytes(99999999999) }}",
    "{{ [1] | tojson(indent=99999999999) }}",
    "{{ 'a' * 300000000 }}",
]
RAISES = [
    "{{ 1 / 0 }}",
    "{{ 'a' + 1 }}",
    "{{ messages[0]['x'] + 1 }}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{{ range(1000000000) }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ " + "(" * 500 + ")" * 500 + " }}",
    "{{ " + "not " * 50000 + "1 }}",
    "{{ 1" + "+1" * 50000 + " }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ raise_exception('no') }}",
    "{% if %}",
]
BY_CHANCE = [
    "{{ [1, 2] | random }}",
    "{{ lipsum() }}",
    "{{ messages | map('upper') }}",
    "{{ cycler(1) }}",
]


def with_template(tokenizer: PreTrainedTokenizerFast, template: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer like another one with a template of its own."""
    own = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|im_end|>", chat_template=template
    )
    own.name_or_path = "some/model"
    return own


@pytest.mark.slow
@pytest.mark.parametrize("broken", [*RUNS_FOR_EVER, *TAKES_MEMORY], ids=lambda template: template[:40])
def test_what_a_template_takes_is_bounded_and_costs_the_run_no_memory(
    tokenizer: PreTrainedTokenizerFast, broken: str
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match=r"chat template of 'some/model' does not render: "):
        ChatCodec(with_template(tokenizer, SAYS + broken))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


@pytest.mark.parametrize("broken", [*RAISES, *BY_CHANCE], ids=lambda template: template[:40])
def test_whatever_a_template_raises_and_whatever_is_left_to_chance_is_refused(
    tokenizer: PreTrainedTokenizerFast, broken: str
) -> None:
    with pytest.raises(ModelError, match=r"chat template of 'some/model' does not render: \S"):
        ChatCodec(with_template(tokenizer, SAYS + broken))


def test_what_a_template_says_of_itself_takes_over_no_terminal(tokenizer: PreTrainedTokenizerFast) -> None:
    complains = "{{ raise_exception(messages[0].content) }}"
    with pytest.raises(ModelError, match="does not render: ") as error:
        Renderer(with_template(tokenizer, complains)).render(["user"], [TAKES_OVER], generate=False)
    assert str(error.value).endswith(visible(TAKES_OVER))
    assert is_plain(str(error.value))


def test_a_template_that_shows_its_worst_in_a_later_turn_is_refused_there(tokenizer: PreTrainedTokenizerFast) -> None:
    later = "{% if 'open sesame' in messages[-1].content %}{{ 'a' * 6000000000 }}{% endif %}"
    codec = ChatCodec(with_template(tokenizer, SAYS + later))
    assert codec.bridge([Message("user", "hello")], codec.end_token)
    for _ in range(2):  # it is not asked again
        with pytest.raises(ModelError, match="takes more than 1,024 MiB of memory"):
            codec.bridge([Message("user", "open sesame")], codec.end_token)


TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=5, max_size=5)


@settings(max_examples=10)
@given(said=TEXTS, generate=st.booleans(), tools=st.booleans())
@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_published_template_renders_is_what_transformers_renders(
    family: str, said: list[str], generate: bool, tools: bool
) -> None:
    tokenizer = tokenizer_of(family)
    roles = ("user", "assistant", "user", "assistant", "user")
    renderer = Renderer(tokenizer)
    expected = tokenizer.apply_chat_template(
        [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)],
        tools=[TOOL] if tools else None,
        tokenize=False,
        add_generation_prompt=generate,
        strftime_now=renderer.now.strftime,
    )
    assert renderer.render(roles, said, generate, tools=[TOOL] if tools else []) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{% generation %}{{ messages[0].content }}{% endgeneration %}!",
        "{% for m in messages %}{% generation %}{{ loop.index }}{{ m.content }}{% endgeneration %}{% endfor %}",
        "{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
        "{{ messages | tojson(indent=2) }}\n  {% if true %}\nx\n  {% endif %}\n",
        "{{ messages[0].nothing }}{{ bos_token }}{{ eos_token }}{{ documents }}{{ tools }}",
    ],
)
def test_what_transformers_adds_to_jinja_is_there(tokenizer: PreTrainedTokenizerFast, template: str) -> None:
    own = with_template(tokenizer, template)
    chat = [{"role": "user", "content": "<é>"}, {"role": "assistant", "content": "b"}]
    expected = own.apply_chat_template(chat, tokenize=False)
    assert Renderer(own).render(("user", "assistant"), ["<é>", "b"], generate=False) == expected


def expression(chance: random.Random, depth: int) -> str:
    """Return an expression of Jinja at random, which may well raise."""
    if depth == 0 or chance.random() < 0.15:
        return chance.choice(
            ["1", "0", "2.5", "'é'", "none", "true", "[]", "n", "i", "messages[0].content", "messages"]
        )
    one, other = (expression(chance, depth - 1) for _ in range(2))
    operator = chance.choice(["+", "-", "*", "/", "//", "%", "~", "==", "<", "and", "or", "in"])
    after = chance.choice(["upper", "length", "list", "tojson", "string", "join('-')", "first", "sort", "int", "trim"])
    return chance.choice([
        f"({one} {operator} {other})",
        f"({one} | {after})",
        f"[{one}, {other}]",
        f"({one} if {other} else n)",
        f"{{'k': {one}}}",
        f"{one}[{other}]",
        f"f({one})",
    ])  # fmt: skip


def statement(chance: random.Random, depth: int) -> str:
    """Return a piece of a template at random: deep, long, nested or calling itself."""
    shown = expression(chance, chance.randrange(5))
    if depth == 0:
        return f"{{{{ {shown} }}}}"
    inner = "".join(statement(chance, depth - 1) for _ in range(chance.randrange(1, 3)))
    return chance.choice([
        f"{{% for i in range({chance.randrange(4)}) %}}{inner}{{% endfor %}}",
        f"{{% if {shown} %}}{inner}{{% else %}}-{{% endif %}}",
        f"{{% set n = {shown} %}}{inner}",
        f"{{% macro f(n) %}}{inner}{{% endmacro %}}{{{{ f({shown}) }}}}",
        f"{{{{ {'(' * depth * 40}{shown}{')' * depth * 40} }}}}",
        f"{inner * 9}",
    ])  # fmt: skip


def test_a_template_of_a_grammar_renders_as_plain_jinja_does_or_is_refused() -> None:
    chance, sandbox = random.Random(7), TemplateSandbox()
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    plain.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    rendered = refused = 0
    for _ in range(300):
        template = statement(chance, chance.randrange(4))
        try:
            found = sandbox.render(template, TIME, [said("ü")])
        except BeyondBoundsError:
            continue
        except TemplateFailedError:
            refused += 1
            with pytest.raises(Exception):  # noqa: B017, PT011  # a template may raise anything
                plain.from_string(template).render(messages=[said("ü")])
            continue
        rendered += 1
        assert found == plain.from_string(template).render(messages=[said("ü")])
    assert min(rendered, refused) > 50


def test_after_a_template_that_never_ends_others_are_rendered() -> None:
    sandbox = TemplateSandbox()
    with pytest.raises(BeyondBoundsError, match="more than 2 s of processor time"):
        sandbox.render(RUNS_FOR_EVER[0], TIME, [])
    assert sandbox.render("{{ messages[0].content }}", TIME, [said("\ud800é\n")]) == "\ud800é\n"


def said(text: str) -> dict[str, Any]:
    """Return a user's message."""
    return {"role": "user", "content": text}


def test_a_process_that_somebody_kills_is_replaced() -> None:
    sandbox = TemplateSandbox()
    sandbox.render("x", TIME, [])
    assert sandbox._process is not None
    os.kill(sandbox._process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, sandbox._process.pid, os.WEXITED | os.WNOWAIT)
    assert sandbox.render("{{ now }}y", TIME, []) == "y"


def test_after_an_interrupt_the_next_text_is_the_right_one() -> None:
    sandbox = TemplateSandbox()
    timer = threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        sandbox.render(RUNS_FOR_EVER[0], TIME, [])
    assert sandbox.render("y", TIME, []) == "y"


def test_threads_get_their_own_texts() -> None:
    sandbox = TemplateSandbox()
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        for turn in range(20):
            found[number] = sandbox.render("{{ messages[0].content }}", TIME, [said(f"{number}.{turn}")])

    threads = [threading.Thread(target=ask, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: f"{number}.19" for number in range(4)}


def test_a_fork_has_a_process_of_its_own() -> None:
    assert template_sandbox().render("mine", TIME, []) == "mine"
    child = os.fork()
    if not child:
        os._exit(0 if template_sandbox().render("yours", TIME, []) == "yours" else 1)
    assert template_sandbox().render("mine again", TIME, []) == "mine again"
    assert os.waitpid(child, 0)[1] == 0


def test_a_template_that_fails_once_is_asked_again() -> None:
    sandbox = TemplateSandbox()
    refuses = "{% if messages[0].content == 'a' %}{{ raise_exception('not that') }}{% endif %}fine"
    with pytest.raises(TemplateFailedError, match="not that"):
        sandbox.render(refuses, TIME, [said("a")])
    assert sandbox.render(refuses, TIME, [said("b")]) == "fine"

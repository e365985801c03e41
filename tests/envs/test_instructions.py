"""Instructions: each kind of constraint is checked exactly, and a set of them can be kept together."""

import re
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playing import LAZY, contents, make, played, told

from llmgym.envs.instructions.constraints import (
    CONSTRAINTS,
    Avoids,
    Bullets,
    Case,
    Constraint,
    Contains,
    FirstWord,
    JsonKeys,
    LastWord,
    NoCommas,
    Order,
    Repeats,
    Sentences,
    Words,
)
from llmgym.envs.instructions.task import kept_by
from llmgym.envs.instructions.writer import TOPICS, write
from llmgym.errors import ConfigError


@pytest.mark.parametrize("kind", CONSTRAINTS)
def test_what_is_read_off_a_text_is_kept_by_it_and_not_once_it_is_spoilt(kind: str) -> None:
    found = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        text = write(rng, TOPICS[seed % len(TOPICS)])
        constraint = CONSTRAINTS[kind].read_off(rng, text)
        if constraint is not None:
            found += 1
            assert constraint.met(text), (constraint, text)
            assert not constraint.met(constraint.spoilt(text)), (constraint, text)
            assert not constraint.met("") or kind in ("avoids", "no_commas")
    assert found > 40


@pytest.mark.parametrize(
    ("constraint", "kept", "broken"),
    [
        (Words(3, 4), ["one two three", "a-b c d e's!"], ["one two", "a b c d e", "1 2 3", ""]),
        (
            Sentences(2),
            ["A b. C d.", "Go... Stop.\n"],
            ["A b.", "A. B. C.", "A b. C d", "A. B. c", "A b. C d!", "A? B.", "A. B. C!", ""],
        ),
        (
            Contains("boat", 2),
            ["A boat, a BOAT.", "boat boat"],
            ["boat", "boats boat", "boat boat boat", "steamboat boat"],
        ),
        (Avoids("the"), ["a then b", ""], ["The end", "in the, end"]),
        (
            FirstWord("today"),
            [
                "Today it rains",
                "- today",
                " \n today",
                '"Today"',
                "“Today”",
                "(today)",
                "**Today**",
                "# Today",
                "_today_",
            ],
            ["It is today", "todays news", "1. today", "1today"],
        ),
        (LastWord("soup"), ["hot soup", "Soup!"], ["soup is hot", "soups", ""]),
        (NoCommas(), ["a; b"], ["a, b", "a，b"]),
        (Case(upper=True), ["ABC 1!"], ["aBC", "123", ""]),
        (Case(upper=False), ["abc 1!"], ["Abc", ""]),
        (
            Bullets(2),
            ["- a\n- b", "- a\n- b\n"],
            ["- a", "- a\n- b\n- c", "- a\n\n- b", "* a\n* b", "Two:\n- a\n- b", "- a\n- "],
        ),
        (
            JsonKeys(("a", "b")),
            ['{"a": "x", "b": "y"}', ' {"a":"x",\n"b":"y"} '],
            [
                '{"b": "y", "a": "x"}',
                '{"a": "x"}',
                '{"a": "x", "a": "x", "b": "y"}',
                '{"a": 1, "b": "y"}',
                '{"a": "", "b": "y"}',
                '["a", "b"]',
                '{"a": "x", "b": "y"} Done.',
                '{"a": "x", "b": "y", "c": "z"}',
                "{}",
                "null",
                "[" * 2000,
            ],
        ),
        (
            Order("boat", "pier"),
            ["A boat at a pier", "boat pier boat"],
            ["pier boat", "boat", "pier", "pier boat pier"],
        ),
        (Repeats(2), ["a a b"], ["a a A", ""]),
    ],
    ids=lambda value: value.kind if hasattr(value, "kind") else "",
)
def test_each_kind_keeps_to_its_word(constraint: Constraint, kept: list[str], broken: list[str]) -> None:
    assert [constraint.met(text) for text in kept] == [True] * len(kept)
    assert [constraint.met(text) for text in broken] == [False] * len(broken)
    assert constraint.told.endswith((".", '."'))


@given(st.text())
def test_any_text_keeps_a_constraint_or_does_not(text: str) -> None:
    rng = np.random.default_rng(0)
    for seed in range(3):
        for kind in CONSTRAINTS.values():
            constraint = kind.read_off(rng, write(np.random.default_rng(seed), TOPICS[0]))
            if constraint is not None:
                assert constraint.met(text) in (True, False)


@given(st.text(alphabet="ab -'.,\n"))
def test_words_are_counted_as_a_plain_scan_counts_them(text: str) -> None:
    cleaned = re.sub(r"(?<![ab])['-]|['-](?![ab])", " ", text)
    expected = Counter(re.split(r"[ .,\n]+", cleaned))
    expected.pop("", None)
    total = sum(expected.values())
    assert Words(total, total).met(text)
    assert not Words(total + 1, total + 5).met(text)


@pytest.mark.parametrize("difficulty", range(4))
def test_the_expert_keeps_all_at_every_seed_and_a_mistake_not(difficulty: int) -> None:
    env = make("Instructions", difficulty=difficulty)
    for seed in range(300):
        total, info = told(env, seed, "expert")
        assert total == 1.0
        assert set(info.values()) == {1.0}
        kinds = [one.kind for one in env.episode.task.constraints]
        assert len(set(kinds)) == len(kinds) <= env.most
        assert "words" in kinds
        assert set(kinds) - {"words", "avoids", "no_commas", "case", "repeats"}
        total, info = told(env, seed, "mistake")
        assert total <= 0.3
        assert info["success"] == 0


@pytest.mark.parametrize("difficulty", range(4))
def test_no_lazy_policy_keeps_all(difficulty: int) -> None:
    env = make("Instructions", difficulty=difficulty)
    for name, policy in LAZY.items():
        for seed in range(50):
            total, info = played(env, seed, policy)
            assert total < 0.3
            assert info["success"] == 0
            if name in ("empty", "echo", "all it was told", "long"):
                assert total == 0


def test_a_reply_that_repeats_a_line_of_the_task_keeps_nothing() -> None:
    env = make("Instructions", difficulty=2)
    for seed in range(20):
        env.reset(seed=seed)
        brief = env.episode.task
        assert all(kept_by(brief.text, brief).values())
        for line in brief.told.splitlines():
            said = line.partition(". ")[2] if line[0].isdigit() else line
            for echo in (said.upper(), f"{brief.text}\n{said}", said.replace(" ", "\n ")):
                assert not any(kept_by(echo, brief).values())
        assert not any(kept_by(brief.text + " " * 2_000, brief).values())


@given(st.text())
def test_whatever_is_replied_a_full_reward_is_for_keeping_all(reply: str) -> None:
    env = make("Instructions")
    total, info = played(env, 5, lambda env, seen: reply)
    kept = [value for name, value in info.items() if name != "success"]
    assert total == (1.0 if all(kept) else pytest.approx(0.3 * sum(kept) / len(kept)))


def test_only_the_kinds_that_are_named_are_in_play() -> None:
    env = make("Instructions", kinds=["json_keys", "order"], difficulty=3)
    for seed in range(30):
        env.reset(seed=seed)
        assert {one.kind for one in env.episode.task.constraints} <= {"words", "json_keys", "order"}
    for kinds in (["words"], ["avoids"], ["case", "no_commas"]):
        env = make("Instructions", kinds=kinds)
        for seed in range(10):
            env.reset(seed=seed)
            assert {"words"} <= {one.kind for one in env.episode.task.constraints} <= {"words", *kinds}


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["bulets"], "There is no constraint 'bulets'. Did you mean 'bullets'"),
        (["words", 3], "There is no constraint 3"),
        ("words", "kinds has to be a list of names"),
        ([], "kinds has to be a list of names"),
    ],
)
def test_an_unknown_constraint_is_an_error(kinds: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        make("Instructions", kinds=kinds)


def test_no_task_is_in_both_splits() -> None:
    for difficulty in range(4):
        seen = {s: contents("Instructions", s, range(200), difficulty=difficulty) for s in ("train", "eval")}
        assert not seen["train"] & seen["eval"]
        assert min(map(len, seen.values())) > 190


def test_a_hundred_kilobytes_are_read_at_once() -> None:
    env = make("Instructions", difficulty=3)
    began = time.process_time()
    for text in ("a " * 50_000, "." * 100_000, "- " * 50_000, "[" * 100_000, "a-" * 50_000):
        assert played(env, 0, lambda env, seen, text=text: text)[0] == 0  # type: ignore[misc]
    assert time.process_time() - began < 0.5

"""CodeWord: marks are exact, the word pays whenever it is found, and nothing else pays much."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playing import LAZY, contents, make, played, told

import llmgym
from llmgym.envs.codeword.game import words
from llmgym.envs.codeword.marks import marks
from llmgym.envs.splits import split_of
from llmgym.errors import ConfigError

pairs = st.integers(3, 7).flatmap(lambda size: st.tuples(*[st.text("abcd", min_size=size, max_size=size)] * 2))


@given(pairs)
def test_marks_count_each_letter_as_often_as_the_word_has_it(pair: tuple[str, str]) -> None:
    guess, word = pair
    found = marks(guess, word)
    assert [mark == "+" for mark in found] == [a == b for a, b in zip(guess, word, strict=True)]
    for letter in set(guess):
        places = [i for i, one in enumerate(guess) if one == letter and found[i] != "+"]
        right = sum(a == b == letter for a, b in zip(guess, word, strict=True))
        elsewhere = min(Counter(guess)[letter], Counter(word)[letter]) - right
        assert [found[i] for i in places] == ["?"] * elsewhere + ["-"] * (len(places) - elsewhere)


@pytest.mark.parametrize(
    ("guess", "word", "expected"),
    [
        ("speed", "abide", "--?-?"),
        ("speed", "erase", "?-??-"),
        ("speed", "steal", "+-+--"),
        ("speed", "crepe", "-?+?-"),
        ("allay", "llama", "?+??-"),
        ("crane", "crane", "+++++"),
    ],
)
def test_marks_of_well_known_guesses(guess: str, word: str, expected: str) -> None:
    assert marks(guess, word) == expected


def test_the_word_list_is_one_sorted_word_per_line_and_big_enough_for_two_splits() -> None:
    text = Path(llmgym.envs.codeword.game.__file__).with_name("words.txt").read_text(encoding="utf-8")  # type: ignore[attr-defined]
    assert text == "".join(f"{word}\n" for letters in (4, 5, 6) for word in words(letters))
    for letters, count in ((4, 541), (5, 696), (6, 479)):
        listed = words(letters)
        assert list(listed) == sorted(set(listed))
        assert len(listed) == count
        assert all(word.isascii() and word.isalpha() and word.islower() for word in listed)
        assert sum(split_of(word) == "eval" for word in listed) > 75


@pytest.mark.parametrize("difficulty", range(4))
def test_the_expert_finds_the_word_and_mistakes_do_not(difficulty: int) -> None:
    env = make("CodeWord", difficulty=difficulty)
    for seed in range(60):
        total, info = told(env, seed, "expert")
        assert total == pytest.approx(1.0)
        assert info == pytest.approx({"success": 1.0, "found": 0.8, "places": 0.2, "invalid": 0.0})
        guesses = [env.guess_in(action) for action in env.episode.actions]
        for i, guess in enumerate(guesses[:-1]):  # each agrees with all marks before it
            assert all(marks(a, str(guess)) == marks(a, env.episode.task.word) for a in guesses[:i])
        total, info = told(env, seed, "mistake")
        assert 0 <= total < 0.2
        assert info["success"] == 0


def test_the_expert_mostly_finds_the_word_before_its_last_guess() -> None:
    env = make("CodeWord")
    early = 0
    for seed in range(60):
        told(env, seed, "expert")
        early += len(env.episode.turns) < env.level.guesses
    assert early > 45


@pytest.mark.parametrize("difficulty", range(4))
def test_no_lazy_policy_earns_anything(difficulty: int) -> None:
    env = make("CodeWord", difficulty=difficulty)
    for seed in range(20):
        for policy in LAZY.values():
            total, info = played(env, seed, policy)
            assert total == pytest.approx(-0.05 * env.level.guesses)
            assert info["success"] == 0


def test_the_same_guess_again_earns_nothing_more() -> None:
    env = make("CodeWord")
    totals = [played(env, seed, lambda env, seen: "<guess>crane</guess>")[0] for seed in range(100)]
    assert all(total < 0.2 for total in totals if total != pytest.approx(1.0))
    assert sum(totals) / 100 < 0.1


def test_a_reply_without_a_guess_uses_one_up_and_costs_a_little() -> None:
    env = make("CodeWord")
    env.reset(seed=0)
    word = env.episode.task.word
    said, reward, *_ = env.step("hm")
    assert (said.splitlines()[-1], reward) == ("Guesses left: 5", -0.05)
    said, reward, over, _, info = env.step(f"It is <guess> {word.upper()}\n</guess>!")
    assert said == f"{' '.join(word)}\n+ + + + +"
    assert (reward, over) == (pytest.approx(1.0), True)
    assert info["invalid"] == -0.05
    assert info["success"] == 1.0


@pytest.mark.parametrize(
    "reply",
    ["{}", "<guess>{}</guess> <guess>{}</guess>", "<guess>{} {}</guess>", "<guess>{}s</guess>", "<guess></guess>",
     "<guess>{}", "</guess>{}<guess>", "<guess><guess>{}</guess></guess>", "<guess>{}.</guess>"],
)  # fmt: skip
def test_a_guess_is_one_run_of_letters_between_tags(reply: str) -> None:
    env = make("CodeWord")
    for seed in range(5):
        assert played(env, seed, lambda env, seen: reply.replace("{}", env.episode.task.word))[0] < 0


@given(st.lists(st.one_of(st.text(), st.text("abcdefghi", min_size=5, max_size=5).map("<guess>{}</guess>".format))))
def test_whatever_is_replied_only_the_word_pays_more_than_a_fifth(replies: list[str]) -> None:
    env = make("CodeWord")
    total, info = played(env, len(replies), lambda env, seen: (replies[len(env.episode.turns) :] or [""])[0])
    assert info["success"] or total < 0.2


def test_a_guess_in_other_alphabets_is_none() -> None:
    env = make("CodeWord")
    for text in ("crané", "ｃｒａｎｅ", "сгапе", "İabcd", "\u212aings", "crane\u200b"):
        assert env.guess_in(f"<guess>{text}</guess>") in (None, "kings")  # the Kelvin sign is a k in lower case


def test_no_word_is_secret_in_both_splits() -> None:
    for difficulty in range(4):
        seen = {split: contents("CodeWord", split, range(300), difficulty=difficulty) for split in ("train", "eval")}
        assert not seen["train"] & seen["eval"]
        assert min(map(len, seen.values())) > 60


@pytest.mark.parametrize("options", [{"difficulty": 4}, {"difficulty": "1"}, {"split": "dev"}])
def test_an_unknown_setting_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))} has to be one of"):
        make("CodeWord", **options)

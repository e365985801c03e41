"""Scorers of the form of replies: patterns, length, repetition, citations and languages."""

import itertools
import json
import math
import re
import sys
import time
import unicodedata
from collections import Counter
from typing import Any

import hostile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmgym.agents import GRPO
from llmgym.envs.aiops import AIOpsTriage
from llmgym.envs.waiting import settled
from llmgym.errors import ConfigError
from llmgym.scorers import Weighted, ask, find_scorer, isolated, registered_scorers, resolve_scorer
from llmgym.scorers.asking import AnyScorer
from llmgym.scorers.languages import SCRIPTS, SMALL_WORDS
from llmgym.scorers.text import Length, Regex
from llmgym.types import Episode, Message, Score, Turn

NAMES = [
    "regex:^a.*b$", "length:10", "repetition", "citations", *(f"language:{code}" for code in (*SCRIPTS, *SMALL_WORDS))
]  # fmt: skip


def told(scorer: AnyScorer | str, *replies: str, shown: str = "What?", **fields: Any) -> float:
    episode = Episode(turns=[Turn(shown, reply) for reply in replies], **fields)
    found: Score = settled(ask(resolve_scorer(scorer), [episode], [0]))[0]
    assert found.value is not None, found.error
    return found.value


@settings(max_examples=60)
@given(st.lists(hostile.texts(), max_size=3), hostile.texts())
def test_any_text_is_scored_between_0_and_1(replies: list[str], shown: str) -> None:
    for name in NAMES:
        assert 0.0 <= told(name, *replies, shown=shown) <= 1.0, name


@pytest.mark.parametrize("unit", ["a", "the cat sat ", "汉字", "[ ", "[T1, ", "\ud800", "a\u0301", "\0", " "])
def test_ten_megabytes_take_seconds(unit: str) -> None:
    text = (unit * (10_000_000 // len(unit) + 1))[:10_000_000]
    for name in ("regex:b$", "length:10", "repetition", "citations", "language:zh", "language:en"):
        start = time.perf_counter()
        assert 0.0 <= told(name, text, shown=text[:1000]) <= 1.0
        assert time.perf_counter() - start < 20.0, name


def test_a_pattern_is_searched_in_the_last_reply_alone() -> None:
    assert told("regex:^Answer: [0-9]+$", "Answer: 5") == 1.0
    assert told("regex:^Answer: [0-9]+$", "Answer: 5", "I do not know") == 0.0
    assert told("regex:(?im)^answer: a:b$", "So:\nANSWER: A:B\nDone") == 1.0
    assert told("regex:.*") == 1.0, "an episode without a reply has an empty one"


@pytest.mark.parametrize("pattern", ["(", "[", "a{2,1}", "(?P<a>x)(?P<a>y)", "(?z)", "*", "a{99999999999999999999}"])
def test_what_is_no_pattern_is_refused_when_the_scorer_is_made(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a pattern after 'regex:', got"):
        resolve_scorer(f"regex:{pattern}")


def test_a_name_that_needs_something_after_its_colon_says_so() -> None:
    with pytest.raises(ConfigError, match=r"expected something after the colon of 'regex:', got nothing"):
        find_scorer("regex:")


def test_a_catastrophic_pattern_in_a_worker_costs_one_score() -> None:
    inside = find_scorer("'regex:^(a|aa)+$' + 0*length:100")()
    scorer = isolated(inside, workers=1, timeout=1.5)
    assert isinstance(scorer, Weighted)
    assert type(scorer.scorers["length:100"]) is Length, "what cannot hang stays in this process"
    assert type(scorer.scorers["regex:^(a|aa)+$"]) is not Regex
    episodes = [Episode(turns=[Turn("?", reply)]) for reply in ("aaa", "a" * 100 + "b", "aa", "b")]
    start = time.perf_counter()
    scores = settled(ask(scorer, episodes, [0] * 4))
    assert time.perf_counter() - start < 30.0
    assert [score.value for score in scores] == [1.0, None, 1.0, 0.0]
    assert "regex:^(a|aa)+$ did not answer: it took longer than 1.5 s" in str(scores[1].error)


@given(st.integers(1, 50), st.integers(0, 200))
def test_length_falls_on_a_line_from_1_at_the_limit_to_0_at_twice_the_limit(limit: int, length: int) -> None:
    expected = 1.0 if length <= limit else 0.0 if length >= 2 * limit else (2 * limit - length) / limit
    assert told(f"length:{limit}", "first", "a" * length) == pytest.approx(expected, abs=1e-12)
    assert told(Length(at_most=limit, unit="words"), "two words " * length) == told(f"length:{limit}", "a" * 2 * length)


@pytest.mark.parametrize("limit", ["0", "-1", "1.5", "1e3", "a", "１２", "9" * 5000, 0, -1, 1.5, True, None, math.nan])
def test_a_limit_is_a_whole_number_of_at_least_1(limit: Any) -> None:
    with pytest.raises(ConfigError, match="expected a whole number of at least 1 after 'length:'"):
        Length(limit)
    with pytest.raises(ConfigError, match="unit of length"):
        Length(1, "tokens")  # type: ignore[arg-type]


@given(st.lists(st.lists(st.sampled_from(["on", "off", "up"]), min_size=4, max_size=30), min_size=1, max_size=3))
def test_repetition_is_the_share_of_sequences_of_four_words_that_are_new(replies: list[list[str]]) -> None:
    counts: Counter[tuple[str, ...]] = Counter()
    for words in replies:
        counts.update(tuple(words[i : i + 4]) for i in range(len(words) - 3))
    repeated = sum(count - 1 for count in counts.values())
    assert told("repetition", *map(" ".join, replies)) == pytest.approx(1 - repeated / counts.total())


def test_repetition_is_noticed_in_any_script_and_within_words() -> None:
    once = "数据库的连接池已经耗尽，请重新启动服务。"
    assert told("repetition", once) == 1.0
    for piece in (once, "ฐานข้อมูลล่ม", "データベースが落ちた。", "ha", "a", "!", "the pool is full. "):
        assert told("repetition", piece * 100) < 0.1, piece
    assert told("repetition", "The pool is full.", "THE POOL IS FULL!") == 0.5
    for none in ([], [""], ["", " \n"], ["yes"]):
        assert told("repetition", *none) == 1.0


def test_citations_of_what_was_shown_count() -> None:
    shown = "T1 checkout 3400 ms; [M2] heap 96%\nL3 deadline exceeded, XT9"
    for reply, value in (
        ("It is slow [T1].", 1.0),
        ("It is slow [T1], [M2].", 1.0),
        ("It is slow [T1, M2] [L3; T1].", 1.0),
        ("It is slow [T1] and [T9].", 0.5),
        ("It is slow [T1] [T1] [T9].", 0.5),
        ("It is slow T1.", 0.0),
        ("It is slow [t1], [2], [1] and [X].", 0.0),
        ("", 0.0),
    ):
        assert told("citations", reply, shown=shown) == value, reply
    assert told("citations", "[T1]", "[T7]", shown=shown) == 0.0, "a reply shows nothing"


def test_tags_that_tools_show_can_be_cited_and_those_of_the_system_prompt_not() -> None:
    turn = Turn("a\n\nb", "[D7]", heard=(Message("tool", "D7 pool full", name="logs"), Message("user", "Go on.")))
    for said, value in (("so [D7]", 1.0), ("so [S1]", 0.0)):
        episode = Episode("Cite tags, such as S1.", [turn, Turn("Why?", said)])
        assert settled(ask(resolve_scorer("citations"), [episode], [0]))[0].value == value


def test_the_expert_of_a_triage_cites_what_it_saw() -> None:
    env = AIOpsTriage()
    for seed in range(20):
        shown, _ = env.reset(seed=seed)
        assert told("citations", next(iter(env.expert())), shown=shown) == 1.0


SENTENCES = {
    "zh": "数据库的连接池已经耗尽。",
    "ja": "データベースの接続がなくなりました。",
    "ko": "데이터베이스 연결이 모두 사용되었습니다.",
    "ru": "Все соединения с базой данных заняты.",
    "el": "Όλες οι συνδέσεις είναι κατειλημμένες.",
    "ar": "جميع الاتصالات بقاعدة البيانات مشغولة.",
    "he": "כל החיבורים למסד הנתונים תפוסים.",
    "th": "การเชื่อมต่อฐานข้อมูลเต็มแล้ว",
    "hi": "डेटाबेस के सभी कनेक्शन व्यस्त हैं।",
    "en": "All connections of the database are in use, and there is nothing that would free them.",
    "de": "Alle Verbindungen der Datenbank sind belegt, und es ist nicht klar, wie sie frei werden.",
    "fr": "Toutes les connexions de la base sont prises, et nous ne savons pas où aller avec cette panne.",
    "es": "Todas las conexiones están ocupadas, pero también hay un error en los registros.",
    "it": "Tutte le connessioni della base di dati sono occupate, e questo è anche il guasto.",
    "pt": "Todas as conexões estão ocupadas, e também não há uma causa que seja clara até já.",
    "nl": "Alle verbindingen zijn bezet, maar het is niet duidelijk wat ook nog aan de hand is.",
}


@pytest.mark.parametrize(
    ("language", "sentence"),
    [
        ("pt", "Ele falou sobre isso porque não sabia das coisas entre amigos."),
        ("fr", "Il était dans la maison et hésite entre les deux."),
        ("es", "Les dije que van a casa, pero sobre todo también hay los otros."),
        ("de", "Los, wir gehen und ich komme auch zum Meer."),
        ("it", "Di solito sono le ragazze che hanno più dei ragazzi."),
        ("nl", "Van mij mag het niet, maar hij zij zo."),
    ],
)
def test_words_that_languages_share_count_for_none(language: str, sentence: str) -> None:
    assert told(f"language:{language}", sentence) == 1.0


@pytest.mark.parametrize("language", SENTENCES)
def test_a_sentence_is_in_its_language_and_in_no_other(language: str) -> None:
    for other in SENTENCES:
        found = told(f"language:{other}", SENTENCES[language])
        if other == language:
            assert found > 0.75
        elif (language, other) == ("ja", "zh"):
            assert 0.0 < found < 0.5, "it has Chinese characters"
        else:
            assert found == 0.0, other


ALPHABETS = {
    "zh": ("CJK", "IDEOGRAPHIC"), "ja": ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA"),
    "ko": ("HANGUL",), "ru": ("CYRILLIC",), "el": ("GREEK", "COPTIC"), "ar": ("ARABIC",), "he": ("HEBREW",),
    "th": ("THAI",), "hi": ("DEVANAGARI",),
}  # fmt: skip
USUAL = [(0, 0x86F), (0x900, 0x97F), (0xE00, 0xE7F), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3)]


@pytest.mark.parametrize("code", SCRIPTS)
def test_letters_are_of_the_script_that_their_names_say(code: str) -> None:
    """The names of characters in Unicode's own tables are the oracle."""
    within = re.compile(f"[{SCRIPTS[code]}]")
    for letter in filter(str.isalpha, map(chr, range(sys.maxunicode + 1))):
        named = unicodedata.name(letter, "").startswith(ALPHABETS[code])
        if within.match(letter):
            assert named, hex(ord(letter))
        elif named:
            assert not any(first <= ord(letter) <= last for first, last in USUAL), hex(ord(letter))


@given(st.text(st.sampled_from("abcабв漢字"), min_size=1))
def test_the_share_is_of_letters(text: str) -> None:
    assert told("language:ru", f" {text} 42!\n") == pytest.approx(sum(one in "абв" for one in text) / len(text))
    assert told("language:zh", f"({text})") == pytest.approx(sum(one in "漢字" for one in text) / len(text))


def test_no_small_word_is_of_two_languages() -> None:
    lists = {code: words.split() for code, words in SMALL_WORDS.items()}
    for one, other in itertools.combinations(lists, 2):
        assert not set(lists[one]) & set(lists[other]), (one, other)
    for code, words in lists.items():
        assert len(set(words)) == len(words) >= 20, code
        assert all(re.fullmatch(r"[^\W\d_]+", word) and word == word.casefold() for word in words)


@pytest.mark.parametrize("code", ["xx", "", "EN", "en-US", "english"])
def test_languages_that_are_not_known_are_refused(code: str) -> None:
    with pytest.raises(ConfigError, match="expected"):
        resolve_scorer(f"language:{code}")


def test_a_reply_without_letters_or_small_words_is_in_no_language() -> None:
    for reply in ("", "42", "🙂", "auth", "東京"):
        assert told("language:en", reply) == 0.0
        assert told("language:ja", reply) == 0.0


def test_several_of_a_kind_are_parts_of_their_own() -> None:
    scorer = Weighted({Regex("a"): 0.5, Regex("b"): 0.25, Length(1): 0.125, Length(1, "words"): 0.125})
    assert settled(ask(scorer, [Episode(turns=[Turn("?", "ab")])], [0])) == [
        Score(0.875, {"regex:a": 1.0, "regex:b": 1.0, "length:1": 0.0, "length:1 words": 1.0})
    ]


def test_they_are_weighed_on_a_command_line() -> None:
    found = told("0.8*exact + 0.2*length:4", "abcdef", task={"answer": "ABCDEF"})
    assert found == pytest.approx(0.9)
    assert {"repetition", "citations", "code"} <= registered_scorers().keys()


@pytest.mark.slow
def test_a_run_is_scored_by_them(tmp_path: Any) -> None:
    options: dict[str, Any] = {"steps": 1, "prompts_per_step": 2, "group_size": 2, "eval_episodes": 0}
    scorer = "0.5*length:40 + 0.5*'regex:a b|[a-z]' + 0*repetition + 0*citations + 0*language:en"
    result = GRPO(env="AIOpsTriage", scorer=scorer, scorer_workers=1, output_dir=tmp_path, **options).train()
    (metrics,) = map(json.loads, (result.path / "metrics.jsonl").read_text().splitlines())
    assert metrics["scores_missing"] == 0
    assert 0.0 < metrics["reward"] <= 1.0

"""Search: the answer is in documents that a reader can find, and only those that prove it are worth citing."""

import json
import re
import sqlite3
import time
from typing import Any

import gymnasium
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playing import LAZY, contents, make, played, told

import llmgym
from llmgym import TextEnv, ToolCall, calling
from llmgym.envs.search.answer import read_answer, score_parts
from llmgym.envs.search.index import Index
from llmgym.envs.search.world import Document
from llmgym.errors import ConfigError

# What a question asks for, and the sentence that says so; {} is the entity that it is asked of.
FACTS = {
    r"the city where (.*) lives": r"{} lives in (.*)",
    r"the company that (.*) works for": r"{} works for (.*)",
    r"the city where (.*) is based": r"{} is based in (.*)",
    r"the number of (?P<what>employees|inhabitants) of (.*)": r"{} has (.*) (?:employees|inhabitants)",
    r"the (?P<what>head|mayor|sponsor|scene|author|licence number) of (.*)": r"The {what} of {} is (.*)",
    r"the maker of (.*)": r"{} is made by (.*)",
    r"the designer of (.*)": r"{} is designed by (.*)",
}


def call(env: TextEnv, name: str, **arguments: str) -> Any:
    env.step(calling(ToolCall(name, arguments)))
    (message,) = env.heard
    return json.loads(message.content)


def resolve(env: TextEnv, phrase: str, proof: list[str]) -> str:
    """Follow a question from its inside out, by what tools show alone."""
    if named := re.fullmatch(r"the (?:person|company|city|lamp|novel) ([A-Z]\w*(?: [A-Z]\w*)?)", phrase):
        return named[1]
    asked, sentence = next((m, told) for pattern, told in FACTS.items() if (m := re.fullmatch(pattern, phrase)))
    entity = resolve(env, asked.groups()[-1], proof)
    (id,) = [one["id"] for one in call(env, "search", query=f"who or what is {entity}?") if one["title"] == entity]
    proof.append(id)
    sentences = call(env, "read", id=id)["text"].removesuffix(".").split(". ")
    pattern = sentence.replace("{what}", asked.groupdict().get("what") or "").replace("{}", entity)
    (fact,) = [m[1] for one in sentences if (m := re.fullmatch(pattern, one))]
    return fact


@pytest.mark.parametrize("difficulty", range(4))
def test_who_follows_the_documents_from_one_to_the_next_earns_it_all(difficulty: int) -> None:
    env = make("Search", difficulty=difficulty)
    for seed in range(40):
        question, _ = env.reset(seed=seed)
        proof: list[str] = []
        answer = resolve(env, question.removeprefix("What is ").removesuffix("?"), proof)
        assert len(proof) == env.level.hops
        said = json.dumps({"answer": answer, "documents": proof})
        assert env.step(f"<answer>{said}</answer>")[1] == pytest.approx(1.0)


@pytest.mark.parametrize("split", ["train", "eval"])
@pytest.mark.parametrize("difficulty", range(4))
def test_the_expert_earns_it_all_and_a_mistake_only_what_its_proof_is_worth(difficulty: int, split: str) -> None:
    env = make("Search", difficulty=difficulty, split=split)
    for seed in range(10):
        total, info = told(env, seed, "expert")
        assert (total, info["success"], info["tools/failures"]) == (pytest.approx(1.0), 1.0, 0.0)
        assert len(env.episode.turns) < env.max_turns
        total, info = told(env, seed, "mistake")
        assert (total, info["success"]) == (pytest.approx(0.4), 0.0)
        assert all(played(env, seed, policy)[0] == 0 for policy in LAZY.values())


def answered(env: TextEnv, seed: int, documents: list[str], *, read: list[str], answer: str | None = None) -> float:
    env.reset(seed=seed)
    if read:
        env.step(calling(*(ToolCall("read", {"id": id}) for id in read)))
    said = json.dumps({"answer": env.episode.task.chain.answer if answer is None else answer, "documents": documents})
    return float(env.step(f"<answer>{said}</answer>")[1])


def test_citations_count_if_they_were_read_and_cost_if_they_prove_nothing() -> None:
    env = make("Search", difficulty=1)
    env.reset(seed=4)
    needed = sorted(env.episode.task.chain.documents)
    every = [f"D{number:03d}" for number in range(1, 61)]
    others = [id for id in every if id not in needed]
    assert answered(env, 4, needed, read=every) == pytest.approx(1.0)
    assert answered(env, 4, needed[::-1] * 2, read=every) == pytest.approx(1.0)
    assert answered(env, 4, needed, read=[]) == pytest.approx(0.6)
    assert answered(env, 4, needed, read=needed[:1]) == pytest.approx(0.6 + 0.1 + 0.1)
    assert answered(env, 4, needed[:1], read=every) == pytest.approx(0.6 + 0.2 + 0.1)
    assert answered(env, 4, [*needed, *others[:2]], read=every) == pytest.approx(0.6 + 0.1 + 0.2)
    assert answered(env, 4, [], read=every) == pytest.approx(0.6)
    assert answered(env, 4, others[:2], read=every) == pytest.approx(0.6)
    assert answered(env, 4, every, read=every) == 0
    assert answered(env, 4, needed, read=needed, answer="Nowhere") == pytest.approx(0.4)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "Baldor",
        '{"answer": "x", "documents": []}',
        "<answer>x</answer>",
        '<answer>["x", []]</answer>',
        '<answer>{"answer": "x"}</answer>',
        '<answer>{"answer": "x", "documents": "D001"}</answer>',
        '<answer>{"answer": ["x", "y"], "documents": []}</answer>',
        '<answer>{"answer": true, "documents": []}</answer>',
        '<answer>{"answer": 1.5, "documents": []}</answer>',
        '<answer>{"answer": "x", "documents": [1]}</answer>',
        '<answer>{"answer": "x", "documents": [], "score": 1}</answer>',
        '<answer>{"answer": "x", "documents": ["1", "2", "3", "4", "5", "6"]}</answer>',
        '<answer>{"answer": "x", "documents": []}</answer> <answer>{"answer": "y", "documents": []}</answer>',
        "<answer>" + "[" * 1900 + "</answer>",
        "<answer>" + "9" * 100_000 + "</answer>",
    ],
)
def test_what_is_no_answer_as_asked_for_is_none(reply: str) -> None:
    assert read_answer(reply) is None


def test_a_number_is_an_answer_as_such_and_as_a_text() -> None:
    one, other = (read_answer(f'<answer>{{"answer": {x}, "documents": []}}</answer>') for x in ("1204", '" 1204 "'))
    assert one == other is not None


ids = st.frozensets(st.sampled_from("abcdefgh"), max_size=5)


@given(ids, ids.filter(bool), ids, st.booleans())
def test_only_the_right_answer_with_the_whole_proof_and_no_more_earns_it_all(
    cited: frozenset[str], needed: frozenset[str], read: frozenset[str], right: bool
) -> None:
    answer = read_answer(
        f"<answer>{json.dumps({'answer': 'X' if right else 'y', 'documents': sorted(cited)})}</answer>"
    )
    total = sum(score_parts(answer, "x", needed, read).values())
    assert -1e-9 <= total <= 1 + 1e-9
    assert (total > 1 - 1e-9) == (right and cited == needed and needed <= read)


@pytest.mark.parametrize("query", ["", '"', "* AND (", "NEAR(", "title:x", "-", "a" * 100_000, "\x00", "{a b}: c"])
def test_any_query_is_words_to_look_for(query: str) -> None:
    env = make("Search")
    env.reset(seed=0)
    began = time.monotonic()
    assert isinstance(call(env, "search", query=query), list)
    assert time.monotonic() - began < 1


def test_a_document_that_there_is_not_cannot_be_read() -> None:
    env = make("Search")
    env.reset(seed=0)
    assert "there is no document 'D999'." in call(env, "read", id="D999")["error"]


def test_the_document_with_rarer_words_comes_first() -> None:
    index = Index([Document("1", "a", "red lamp"), Document("2", "b", "red lamp of Orfen"), Document("3", "c", "red")])
    assert next(id for id, _, _ in index.search("red Orfen")) == "2"
    index.close()


def test_what_was_read_in_one_episode_counts_for_no_other() -> None:
    env = make("Search", difficulty=0)
    env.reset(seed=0)
    needed = list(env.episode.task.chain.documents)
    assert answered(env, 0, needed, read=needed) == pytest.approx(1.0)
    assert answered(env, 0, needed, read=[]) == pytest.approx(0.6)


def test_without_full_text_search_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain:
        def execute(self, sql: str) -> None:
            raise sqlite3.OperationalError("no such module: fts5")

    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: Plain())
    with pytest.raises(ConfigError, match="Search needs an SQLite with the extension FTS5"):
        make("Search")


def test_no_question_is_in_both_splits() -> None:
    for difficulty in range(4):
        seen = {split: contents("Search", split, range(40), difficulty=difficulty) for split in ("train", "eval")}
        assert not seen["train"] & seen["eval"]
        assert min(map(len, seen.values())) > 35


def test_it_keeps_its_promises() -> None:
    llmgym.check_env(gymnasium.make("llmgym/Search-v0", render_mode="ansi"), seeds=5)


@pytest.mark.parametrize("options", [{"difficulty": 4}, {"difficulty": True}, {"split": "test"}])
def test_an_unknown_difficulty_or_split_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))} has to be one of"):
        make("Search", **options)

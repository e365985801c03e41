"""The audit finds faults that people really ship, each by its own finding, and nothing where they are repaired."""

import concurrent.futures
import json
import random
import re
import runpy
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest

import llmgym
from llmgym.audit import AuditReport, audit
from llmgym.errors import ConfigError

OWN = [name for name in llmgym.registered_envs() if name.startswith("llmgym/")]


def kinds(report: AuditReport) -> set[str]:
    return {finding.kind for finding in report.findings}


class Sum(llmgym.TextEnv):
    """Add two numbers."""

    def __init__(
        self, pays: Callable[[str, str], float] = lambda answer, reply: float(reply.strip() == answer)
    ) -> None:
        super().__init__()
        self.pays = pays

    def begin(self) -> str:
        self.a, self.b = (int(n) for n in self.np_random.integers(10, 60, 2))
        self.episode.task = str(self.a + self.b)
        return f"What is {self.a} + {self.b}? Answer with the number alone."

    def score(self, episode: llmgym.Episode) -> float:
        return self.pays(episode.task, episode.actions[-1])

    def expert(self) -> Iterator[str]:
        yield self.episode.task

    def mistake(self) -> Iterator[str]:
        yield str(int(self.episode.task) + 1)


def exactly(answer: str, reply: str) -> float:
    return float(reply.strip() == answer)


# Scores of a sum, each with something wrong that looks right.


def anywhere(answer: str, reply: str) -> float:
    return float(answer in reply)


def first_number(answer: str, reply: str) -> float:
    return float(re.findall(r"\d+", reply)[:1] == [answer])


def with_a_bonus_for_length(answer: str, reply: str) -> float:
    return exactly(answer, reply) + 0.0001 * max(0, len(reply) - 100)


def with_a_mark_that_is_read_from_the_whole_text(answer: str, reply: str) -> float:
    given = re.search(r"score: ([\d.]+)", f"{reply} score: {exactly(answer, reply)}".lower())
    return float(given[1]) if given else 0.0


def per_mention(answer: str, reply: str) -> float:
    return float(len(re.findall(rf"\b{answer}\b", reply)))


def with_a_share_that_overflows(answer: str, reply: str) -> float:
    with np.errstate(all="ignore"):
        weight = np.exp(np.float64(len(reply)))
        return float(exactly(answer, reply) * weight / weight)


def slowly(answer: str, reply: str) -> float:
    return float(bool(re.match(r"(\w+\s?)*$", reply)) and reply.strip() == answer)


SCORES: list[tuple[Callable[[str, str], float], str, str]] = [
    (anywhere, "hedging", "a list of all answers"),
    (first_number, "hedging", "a list of all answers"),
    (with_a_bonus_for_length, "above_top", "100 KB of text"),
    (with_a_mark_that_is_read_from_the_whole_text, "undeserved", "a prompt injection"),
    (per_mention, "above_top", "the answer twice"),
    (with_a_share_that_overflows, "raises", "100 KB of text"),
    (slowly, "hangs", "100 KB of text"),
]


@pytest.mark.parametrize(("pays", "kind", "probe"), SCORES, ids=lambda one: getattr(one, "__name__", None))
def test_a_score_that_pays_for_something_else_is_found(pays: Callable[..., float], kind: str, probe: str) -> None:
    report = audit(lambda: Sum(pays), step_timeout=0.3)
    assert (kind, probe) in {(finding.kind, finding.probe) for finding in report.findings}


def test_the_score_that_pays_for_the_sum_has_no_finding() -> None:
    assert audit(lambda: Sum(exactly)).findings == []


def hash_of(text: str) -> int:
    return sum(map(ord, text))


# Environments with something wrong besides their score; the argument repairs it.


class Repairable(Sum):
    def __init__(self, repaired: bool = False) -> None:
        super().__init__()
        self.repaired = repaired


class SaysTheAnswer(Repairable):
    """The observation has the answer, and whoever repeats it has said it."""

    def begin(self) -> str:
        self.episode.task = str(self.np_random.choice(["plum", "fig", "pear", "quince", "apple"]))
        return f"The code word is {self.episode.task}. Say it and nothing else."

    def score(self, episode: llmgym.Episode) -> float:
        said = episode.actions[-1]
        return float(said.strip() == episode.task if self.repaired else episode.task in said)

    def mistake(self) -> Iterator[str]:
        yield "grape"


class NothingIsRight(Repairable):
    """Some services have no owner, and no reply looks like no owner."""

    def begin(self) -> str:
        owner = str(self.np_random.choice(["ann", "bob", "eve", ""]))
        self.episode.task = owner
        return f"service: payments\nowner: {owner}\nWho owns it? Answer with a name, or with unknown."

    def score(self, episode: llmgym.Episode) -> float:
        said, owner = episode.actions[-1].strip(), episode.task
        return float(said == (owner or "unknown") or (not self.repaired and said == owner))

    def expert(self) -> Iterator[str]:
        yield self.episode.task or "unknown"

    def mistake(self) -> Iterator[str]:
        yield "zoe"


class AnyJson(Repairable):
    """What is valid is right."""

    def score(self, episode: llmgym.Episode) -> float:
        try:
            said = json.loads(episode.actions[-1])
        except (ValueError, RecursionError):
            return 0.0
        return float(said == {"sum": self.a + self.b} or not self.repaired)

    def expert(self) -> Iterator[str]:
        yield json.dumps({"sum": self.a + self.b})

    def mistake(self) -> Iterator[str]:
        yield f"The sum is {self.a + self.b}."


class TrustsJson(Repairable):
    """Reads a call without expecting that a model makes mistakes."""

    def score(self, episode: llmgym.Episode) -> float:
        try:
            return float(json.loads(episode.actions[-1])["sum"] == self.a + self.b)
        except (ValueError, RecursionError, KeyError, TypeError):
            if self.repaired:
                return 0.0
            raise

    def expert(self) -> Iterator[str]:
        yield json.dumps({"sum": self.a + self.b})

    def mistake(self) -> Iterator[str]:
        yield json.dumps({"sum": self.a})


class LooksIntoTheObject(Repairable):
    """A value of the right key that has the answer somewhere in it is right."""

    def begin(self) -> str:
        self.episode.task = str(self.np_random.choice(["plum", "fig", "pear", "quince"]))
        return f"Which fruit is {hash_of(self.episode.task)}?"

    def score(self, episode: llmgym.Episode) -> float:
        try:
            said = json.loads(episode.actions[-1])["fruit"]
        except (ValueError, RecursionError, KeyError, TypeError):
            return 0.0
        return float(said == episode.task or (not self.repaired and episode.task in said))

    def expert(self) -> Iterator[str]:
        yield json.dumps({"fruit": self.episode.task})

    def mistake(self) -> Iterator[str]:
        yield json.dumps({"fruit": "grape"})


class TellsAndThenPays(Repairable):
    """Feedback has the answer, and saying it then pays as if it had been known."""

    def respond(self, action: str) -> str | None:
        over = action.strip() == self.episode.task or len(self.episode.turns) == 2
        return None if over else f"No, it is {self.episode.task}"

    def score(self, episode: llmgym.Episode) -> float:
        right = re.findall(r"\d+", episode.actions[-1])[-1:] == [episode.task]
        return float(right and (len(episode.turns) == 1 or not self.repaired))

    def mistake(self) -> Iterator[str]:
        yield from ("0", "0")


class CallsEverythingASuccess(Repairable):
    def succeeded(self, score: llmgym.Score) -> bool:
        return not self.repaired or super().succeeded(score)


class OnlyNewAnswers(Repairable):
    """Answers that were given in some earlier episode earn nothing."""

    given: ClassVar[set[tuple[int, int]]] = set()

    def score(self, episode: llmgym.Episode) -> float:
        new = self.repaired or (self.a, self.b) not in self.given
        self.given.add((self.a, self.b))
        return float(new and episode.actions[-1] == episode.task)


class KeepsItsAttempts(Repairable):
    """An episode begins with the attempts of the one before."""

    attempts = 0

    def begin(self) -> str:
        if self.repaired:
            self.attempts = 0
        return super().begin()

    def respond(self, action: str) -> str | None:
        self.attempts += 1
        return None if action == self.episode.task or self.attempts >= 2 else "No. Once more?"

    def mistake(self) -> Iterator[str]:
        yield from ("0", "1")


class OneTaskForAll(Repairable):
    """The task is kept where all environments have it."""

    newest: ClassVar[str] = ""

    def begin(self) -> str:
        said = super().begin()
        type(self).newest = self.episode.task
        return said

    def score(self, episode: llmgym.Episode) -> float:
        return float(episode.actions[-1].strip() == (episode.task if self.repaired else self.newest))


class IgnoresItsSeed(Repairable):
    def begin(self) -> str:
        rng = self.np_random if self.repaired else np.random.default_rng(7)
        self.a, self.b = (int(n) for n in rng.integers(10, 60, 2))
        self.episode.task = str(self.a + self.b)
        return f"What is {self.a} + {self.b}?"


class DrawsFromEverywhere(Repairable):
    def begin(self) -> str:
        said = super().begin()
        return said + (" Please." if self.repaired or random.random() < 0.5 else "")


class ScoresByTheClock(Repairable):
    def score(self, episode: llmgym.Episode) -> float:
        return super().score(episode) - (0.0 if self.repaired else 1e-4 * (time.perf_counter_ns() % 997))


class HasAPoorExpert(Repairable):
    def expert(self) -> Iterator[str]:
        yield self.episode.task if self.repaired or self.a < 40 else f"{self.episode.task}."


class HasAMistakeThatIsRight(Repairable):
    def mistake(self) -> Iterator[str]:
        yield "0" if self.repaired or self.a < 40 else self.episode.task


class HasOneAnswer(Repairable):
    """Nearly every task has the same answer."""

    def begin(self) -> str:
        load = int(self.np_random.integers(0, 100))
        self.episode.task = "overloaded" if load >= (50 if self.repaired else 98) else "fine"
        return f"The load is {load} %. Is the service fine or overloaded?"

    def mistake(self) -> Iterator[str]:
        yield "overloaded" if self.episode.task == "fine" else "fine"


class LosesTheScore(Repairable):
    """A reply that is too long for the judge costs no reward: the episode is left out."""

    def score(self, episode: llmgym.Episode) -> llmgym.Score:
        if len(episode.actions[-1]) > 10_000 and not self.repaired:
            return llmgym.Score(None, error="the reply does not fit into the judge's context")
        return llmgym.Score(super().score(episode))


class PaysForForm(Repairable):
    """Gibberish earns more than an answer that is nearly right."""

    def score(self, episode: llmgym.Episode) -> float:
        number = episode.actions[-1].strip().isdecimal()
        return super().score(episode) or (0.0 if number or self.repaired else 0.5)


class PaysPerMentionWithoutATop(Repairable):
    top_score = None

    def score(self, episode: llmgym.Episode) -> float:
        count = len(re.findall(rf"\b{episode.task}\b", episode.actions[-1]))
        return float(min(count, 1) if self.repaired and len(episode.actions[-1]) < 4 else count * (not self.repaired))


ENVIRONMENTS: list[tuple[type[Repairable], str]] = [
    (SaysTheAnswer, "undeserved"),
    (NothingIsRight, "undeserved"),
    (AnyJson, "undeserved"),
    (LooksIntoTheObject, "hedging"),
    (TellsAndThenPays, "undeserved"),
    (CallsEverythingASuccess, "undeserved"),
    (TrustsJson, "raises"),
    (OnlyNewAnswers, "leak"),
    (KeepsItsAttempts, "leak"),
    (OneTaskForAll, "shared"),
    (IgnoresItsSeed, "seeds"),
    (DrawsFromEverywhere, "random"),
    (ScoresByTheClock, "leak"),
    (HasAPoorExpert, "expert"),
    (HasAMistakeThatIsRight, "mistake"),
    (HasOneAnswer, "constant"),
    (LosesTheScore, "no_score"),
    (PaysForForm, "beats_mistake"),
    (PaysPerMentionWithoutATop, "repetition"),
]


@pytest.mark.parametrize(("env", "kind"), ENVIRONMENTS, ids=lambda one: getattr(one, "__name__", None))
def test_an_environment_with_a_fault_is_found_and_its_repaired_twin_is_not(env: type[Repairable], kind: str) -> None:
    assert kind in kinds(audit(env))
    assert audit(env, env_kwargs={"repaired": True}).findings == []


# Environments that are as they should be, in ways that an audit could take for faults.


class SaysYesOrNo(Sum):
    """Two answers are possible, and the expert words its own differently in every task."""

    def begin(self) -> str:
        super().begin()
        self.episode.task = "yes" if self.a > self.b else "no"
        return f"Is {self.a} more than {self.b}? Think, then answer in <answer> tags."

    def score(self, episode: llmgym.Episode) -> float:
        return float(re.findall(r"<answer>(.*?)</answer>", episode.actions[-1]) == [episode.task])

    def expert(self) -> Iterator[str]:
        yield f"The numbers are {self.a} and {self.b}. <answer>{self.episode.task}</answer>"

    def mistake(self) -> Iterator[str]:
        yield f"<answer>{'no' if self.episode.task == 'yes' else 'yes'}</answer>"


class TakesTheLastNumber(Sum):
    """As scorers of grade-school mathematics do: what comes before it is reasoning."""

    def score(self, episode: llmgym.Episode) -> float:
        return float(re.findall(r"\d+", episode.actions[-1].replace(",", ""))[-1:] == [episode.task])

    def expert(self) -> Iterator[str]:
        yield f"{self.a} and {self.b} make {self.episode.task}."


class PrefersSilence(Sum):
    """A wrong answer costs more than none."""

    def score(self, episode: llmgym.Episode) -> float:
        said = episode.actions[-1].strip()
        return 1.0 if said == episode.task else -1.0 if said.isdecimal() and len(said) < 10 else 0.0


class EndsWithDone(Sum):
    """The answer is the reply before the last one, which is the same for all tasks."""

    def respond(self, action: str) -> str | None:
        return None if action == "done" or len(self.episode.turns) == 4 else "Noted."

    def score(self, episode: llmgym.Episode) -> float:
        return float(episode.actions == [episode.task, "done"])

    def expert(self) -> Iterator[str]:
        yield from (self.episode.task, "done")

    def mistake(self) -> Iterator[str]:
        yield from ("0", "done")


class GuessesAHiddenNumber(Sum):
    """What is said first is the same for all tasks."""

    max_turns = 8

    def begin(self) -> str:
        self.episode.task = int(self.np_random.integers(1, 101))
        return "Guess a number from 1 to 100."

    def respond(self, action: str) -> str | None:
        number = int(action) if action.isdecimal() and len(action) < 4 else 0
        return None if number == self.episode.task else "Higher." if number < self.episode.task else "Lower."

    def score(self, episode: llmgym.Episode) -> float:
        return float(episode.actions[-1] == str(episode.task))

    def expert(self) -> Iterator[str]:
        low, high = 1, 100
        while low <= high:
            middle = (low + high) // 2
            yield str(middle)
            low, high = (middle + 1, high) if middle < self.episode.task else (low, middle - 1)

    def mistake(self) -> Iterator[str]:
        yield from ["0"] * 8


class PaysInParts(Sum):
    """Overlap of words, as for answers that are short texts, and something for keeping to the form."""

    def begin(self) -> str:
        names = self.np_random.permutation(["ann", "bob", "eve", "kim", "lea", "max", "ned", "pia", "rob", "sue"])
        self.episode.task = " ".join(names[:2])
        return f"{names[0]} and {names[1]} were on call, {names[2]} was not. Who was on call?"

    def score(self, episode: llmgym.Episode) -> dict[str, float]:
        said, right = set(episode.actions[-1].split()), set(episode.task.split())
        overlap = 2 * len(said & right) / (len(said) + len(right))
        return {"overlap": 0.9 * overlap, "form": 0.1 * (len(episode.actions[-1]) < 20)}

    def succeeded(self, score: llmgym.Score) -> bool:
        return score.parts["overlap"] > 0.89

    def mistake(self) -> Iterator[str]:
        yield "zoe tom"


class Waits(Sum):
    """Its methods are coroutines."""

    async def score(self, episode: llmgym.Episode) -> float:  # type: ignore[override]
        return exactly(episode.task, episode.actions[-1])


class HasNoMistakeAndNoTop(Sum):
    top_score = None
    mistake = llmgym.TextEnv.mistake


class DrawsWhileItPlays(Sum):
    """Expert and environment draw from the same generator."""

    def respond(self, action: str) -> str | None:
        return f"Noted. Lucky number: {self.np_random.integers(100)}." if len(self.episode.turns) == 1 else None

    def expert(self) -> Iterator[str]:
        yield f"Let me see, {self.np_random.integers(100)}."
        yield self.episode.task

    def mistake(self) -> Iterator[str]:
        yield from ("Hm.", "0")


SOUND = [
    SaysYesOrNo, TakesTheLastNumber, PrefersSilence, EndsWithDone, GuessesAHiddenNumber, PaysInParts, Waits,
    HasNoMistakeAndNoTop, DrawsWhileItPlays,
]  # fmt: skip


@pytest.mark.parametrize("env", SOUND)
def test_a_sound_environment_has_no_finding(env: type[Sum]) -> None:
    assert audit(env).findings == []


CAPITALS = [{"prompt": f"What is the capital of land {n}?", "answer": f"Town{n}"} for n in range(60)]


@pytest.mark.parametrize("env_id", OWN)
def test_no_environment_of_the_package_has_a_finding(env_id: str) -> None:
    arguments = {"rows": CAPITALS, "scorer": "exact"} if env_id == "llmgym/qa-v0" else {}
    assert audit(env_id, env_kwargs=arguments).findings == []


# The example of the README, with a score that one writes first.

MOVES = {"J": "check", "Q": "check", "K": "bet"}


class HighCard(llmgym.TextEnv):
    def begin(self) -> str:
        card = str(self.np_random.choice(list(MOVES)))
        self.episode.task = MOVES[card]
        return f"You hold {card}. Reply with check or bet."

    def respond(self, action: str) -> str | None:
        over = self.episode.task in action or len(self.episode.turns) == 2
        return None if over else "No. Which is it?"

    def score(self, episode: llmgym.Episode) -> float:
        return float(episode.task in episode.actions[-1]) / len(episode.turns)


def test_a_reward_for_a_move_that_is_anywhere_in_the_reply_is_found_without_an_expert() -> None:
    echo, hedging = audit(HighCard).findings
    assert (echo.kind, hedging.kind) == ("undeserved", "hedging")
    assert hedging.replies == ("bet\ncheck",)
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    for number, finding in enumerate((echo, hedging), start=1):
        assert f"{number}. {finding.kind}: {finding.sentence}\n   {finding.shown}\n" in readme


def test_the_example_of_the_readme_as_it_is_has_no_findings() -> None:
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "custom_env.py"), run_name="example")
    assert audit(example["HighCard"]).findings == []
    del gymnasium.registry["HighCard-v0"]


def test_what_a_finding_shows_shows_the_fault_again() -> None:
    (finding,) = audit(SaysTheAnswer, seeds=20).findings[:1]
    env = SaysTheAnswer()
    env.reset(seed=finding.seed)
    assert env.step(finding.replies[0])[1] == 1.0
    assert finding.probe is not None
    assert finding.shown.startswith(f"seed {finding.seed}, replies: '")


def test_a_scorer_is_audited_by_what_it_pays_the_expert() -> None:
    def brief(episode: llmgym.Episode) -> float:
        return 1.0 / (1 + len(episode.actions[-1]))

    report = audit("AIOpsTriage", scorer=brief, seeds=10)
    assert ("undeserved", "an empty reply") in {(finding.kind, finding.probe) for finding in report.findings}
    assert audit("AIOpsTriage", scorer=lambda episode: 0.0, seeds=10).findings


def test_environments_that_are_no_text_env_can_be_audited() -> None:
    class Plain(gymnasium.Env[str, str]):
        observation_space = action_space = llmgym.UnicodeText()

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
            super().reset(seed=seed)
            return f"Say anything. {self.np_random.integers(1000)}", {}

        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            return "", float("nan") if len(action) > 1000 else 0.0, True, False, {}

    report = audit(Plain, seeds=12)
    assert [(finding.kind, finding.probe) for finding in report.findings] == [
        ("raises", "a malformed call"),
        ("raises", "100 KB of text"),
    ]
    assert "a finite number" in report.findings[0].sentence
    assert any("no expert" in note for note in report.notes)


def test_an_episode_that_never_ends_is_scored_as_it_is() -> None:
    class Endless(Sum):
        def respond(self, action: str) -> str | None:
            return None if action == self.episode.task else "No."

        mistake = llmgym.TextEnv.mistake

    report = audit(Endless, seeds=5)
    assert report.findings == []
    assert all(len(played.replies) == 100 for row in report.rows for played in row.episodes if row.probe == "one word")


def test_the_generators_of_the_process_go_on_as_if_there_had_been_no_audit() -> None:
    random.seed(3)
    np.random.seed(3)
    expected = random.random(), np.random.random()
    random.seed(3)
    np.random.seed(3)
    audit(Sum, seeds=3)
    assert (random.random(), np.random.random()) == expected


def test_outside_of_the_main_thread_there_is_no_time_limit_and_the_rest_is_the_same() -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        assert other.submit(audit, Sum, seeds=3).result().findings == []


@pytest.mark.parametrize(
    ("given", "message"),
    [({"env": Sum()}, "expected an id or what makes an environment"), ({"env": Sum, "seeds": 1}, "at least 2, got 1")],
    ids=["an instance", "one seed"],
)
def test_what_cannot_be_audited_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        audit(**given)

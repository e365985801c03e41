"""The time of a rollout is told by what it went to, and no second counts twice."""

import contextlib
import time

from conftest import random_model
from transformers import PreTrainedTokenizerFast

import llmgym
from llmgym.config.sections import Sampling
from llmgym.engines.local.engine import LocalEngine
from llmgym.envs.vector import TextVectorEnv
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.collector import Collector
from llmgym.rollout.stopwatch import Stopwatch
from llmgym.rollout.task import Task

NAP = 0.05


class Sleepy(llmgym.TextEnv):
    """An environment that sleeps before it answers."""

    max_turns = 1

    def begin(self) -> str:
        return "Say something."

    def respond(self, action: str) -> None:
        time.sleep(NAP)

    def score(self, episode: llmgym.Episode) -> float:
        return 0.0


class Waiting(Sleepy):
    """One that says so."""

    blocking = True


def slow(episode: llmgym.Episode) -> float:
    time.sleep(NAP)
    return 0.0


def played(tokenizer: PreTrainedTokenizerFast, env: type[llmgym.TextEnv], scorer: object = None) -> dict[str, float]:
    chosen = None if scorer is None else llmgym.scorers.resolve_scorer(scorer)  # type: ignore[arg-type]
    envs = TextVectorEnv([env] * 8)
    collector = Collector(envs, ChatCodec(tokenizer), LocalEngine(random_model("qwen2")), chosen)
    begun = time.perf_counter()
    collector.collect([Task(seed, seed) for seed in range(8)], Sampling(max_tokens=4))
    seconds = collector.watch.seconds
    assert sum(seconds.values()) <= time.perf_counter() - begun
    assert seconds["generation"] > 0
    return dict(seconds)


def test_environments_that_hold_everything_up_are_told_apart_from_those_that_wait(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    held_up, waited = played(tokenizer, Sleepy), played(tokenizer, Waiting)
    assert held_up["environment"] >= 8 * NAP > held_up["waiting"]
    assert waited["environment"] == 0
    assert 0.9 * NAP < waited["waiting"] < 8 * NAP


def test_a_scorer_that_holds_everything_up_is_told_apart(tokenizer: PreTrainedTokenizerFast) -> None:
    assert played(tokenizer, Waiting, slow)["scoring"] >= 8 * NAP


def test_a_block_within_a_block_counts_once() -> None:
    watch = Stopwatch()
    with watch.during("generation"):
        time.sleep(NAP)
        with watch.during("scoring"):
            time.sleep(2 * NAP)
    assert watch.seconds["scoring"] >= 2 * NAP
    assert NAP <= watch.seconds["generation"] < 2 * NAP


def test_what_raises_is_counted_too() -> None:
    watch = Stopwatch()
    with contextlib.suppress(ValueError), watch.during("environment"):
        time.sleep(NAP)
        raise ValueError
    assert watch.seconds["environment"] >= NAP


def test_sleep_is_told_apart_from_work() -> None:
    watch = Stopwatch()
    with watch.during("environment"):
        time.sleep(2 * NAP)
    assert watch.working["environment"] < NAP
    with watch.during("scoring"):
        until = time.thread_time() + NAP
        while time.thread_time() < until:
            pass
    assert watch.working["scoring"] >= NAP

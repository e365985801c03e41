"""An environment that raises or hangs costs its own episode, and changes nothing in the others."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from transformers import PreTrainedTokenizerFast

import llmgym
from llmgym.agents import GRPO
from llmgym.config.sections import Sampling
from llmgym.data.trajectories import read_trajectories
from llmgym.engines.scripted import ScriptedEngine
from llmgym.envs.vector import TextVectorEnv
from llmgym.errors import FailureRateError
from llmgym.evaluate import summarise
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.collector import Collector
from llmgym.rollout.task import Task
from llmgym.rollout.trajectory import Trajectory

FAULTY = 7  # the seed that fails


class OwnBaseError(BaseException):
    """One that nobody expects."""


class Unspeakable(Exception):  # noqa: N818  # what it is, is told
    """Its text cannot be had."""

    def __str__(self) -> str:
        return str(self.args[1])


class Sound(llmgym.TextEnv):
    """Three turns; what it says depends on its seed and on what it is told."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.closed = False

    def begin(self) -> str:
        self.number = int(self.np_random.integers(1000))
        self.faulty = self.np_random_seed == FAULTY
        return f"{self.number}"

    def respond(self, action: str) -> Any:
        return f"{self.number + len(action)}" if len(self.episode.turns) < 3 else None

    def score(self, episode: llmgym.Episode) -> Any:
        return float(self.number)

    def close(self) -> None:
        self.closed = True


def failing(method: str, error: BaseException) -> type[Sound]:
    """An environment of which one method raises on the faulty seed."""

    def fails(self: Sound, *arguments: Any) -> Any:
        value = getattr(Sound, method)(self, *arguments)
        if self.faulty:
            raise type(error)(*error.args)  # a new one each time: an exception keeps the tracebacks of earlier raises
        return value

    return type("Failing", (Sound,), {method: fails})


def returning(method: str, value: Any) -> type[Sound]:
    """An environment of which one method returns something else on the faulty seed."""

    def returns(self: Sound, *arguments: Any) -> Any:
        sound = getattr(Sound, method)(self, *arguments)
        return value if self.faulty else sound

    return type("Returning", (Sound,), {method: returns})


def played(kind: type[llmgym.TextEnv], tokenizer: PreTrainedTokenizerFast, **options: Any) -> list[Trajectory]:
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    engine = ScriptedEngine(lambda request: [*tokenizer("ok")["input_ids"], end])
    collector = Collector(TextVectorEnv([kind] * 8), ChatCodec(tokenizer), engine, **options)
    return collector.collect([Task(seed, seed) for seed in range(50)], Sampling(max_tokens=6))


ERRORS = [
    ValueError("boom"),
    StopIteration(),
    RecursionError("deep"),
    OwnBaseError("own"),
    MemoryError(),
    SystemExit(0),
    ValueError("file \udc80 of disk"),
    Unspeakable(),
]


@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("method", ["begin", "respond", "score"])
def test_one_seed_of_fifty_that_raises_leaves_the_others_as_they_are(
    method: str,
    error: BaseException,
    blocking: bool,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sound = played(Sound, tokenizer)
    kind = failing(method, error)
    kind.blocking = blocking
    trajectories = played(kind, tokenizer)
    lost = trajectories[FAULTY]
    assert trajectories[:FAULTY] + trajectories[FAULTY + 1 :] == sound[:FAULTY] + sound[FAULTY + 1 :]
    assert (lost.ending, lost.score, len(lost.replies)) == (
        "env_error",
        None,
        {"begin": 0, "respond": 1, "score": 3}[method],
    )
    when = {"begin": "its reset", "respond": "turn 1", "score": "turn 3"}[method]
    assert lost.score_error is not None
    assert lost.score_error.startswith(f"the environment of seed {FAULTY} failed in {when}: {type(error).__name__}")
    lost.score_error.encode()
    assert f'File "{__file__}"' in lost.score_error
    assert "in fails" in lost.score_error
    assert "waiting.py" not in lost.score_error


@pytest.mark.parametrize(
    ("method", "value"),
    [("begin", 1), ("begin", b"1"), ("begin", {}), ("begin", None), ("respond", 1), ("respond", b"1"), ("respond", {})],
)
def test_an_observation_of_another_type_costs_its_episode(
    method: str, value: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    trajectories = played(returning(method, value), tokenizer)
    assert [one.seed for one in trajectories if one.failed] == [FAULTY]
    error = trajectories[FAULTY].score_error
    assert error is not None
    assert f"EnvironmentContractError: Returning.{method} has to return" in error


def test_what_failed_counts_neither_as_success_nor_as_failure(tokenizer: PreTrainedTokenizerFast) -> None:
    class Perfect(failing("respond", ValueError("boom"))):  # type: ignore[misc]
        def succeeded(self, score: llmgym.Score) -> bool:
            return True

    found = summarise(played(Perfect, tokenizer))
    assert (found.episodes, found.missing, found.success) == (50, 1, 1.0)


class Hanging(Sound):
    blocking = True
    step_timeout = 0.3

    def respond(self, action: str) -> Any:
        if self.faulty:
            time.sleep(60)
        return super().respond(action)


class HangingCoroutine(Sound):
    step_timeout = 0.3
    cancelled = 0

    async def respond(self, action: str) -> Any:
        try:
            await asyncio.sleep(60 if self.faulty else 0)
        except asyncio.CancelledError:
            HangingCoroutine.cancelled += 1
            raise
        return super().respond(action)


@pytest.mark.parametrize("kind", [Hanging, HangingCoroutine])
def test_one_that_hangs_ends_at_its_own_deadline_and_holds_nobody_up(
    kind: type[Sound], tokenizer: PreTrainedTokenizerFast
) -> None:
    sound = played(Sound, tokenizer)
    begun = time.monotonic()
    trajectories = played(kind, tokenizer)
    assert time.monotonic() - begun < 20  # of 60
    lost = trajectories[FAULTY]
    assert trajectories[:FAULTY] + trajectories[FAULTY + 1 :] == sound[:FAULTY] + sound[FAULTY + 1 :]
    assert (lost.ending, lost.score) == ("env_timeout", None)
    assert lost.score_error == "the environment of seed 7 failed in turn 1: took longer than its step_timeout of 0.3 s"
    assert HangingCoroutine.cancelled == (kind is HangingCoroutine)


@pytest.mark.parametrize("kind", [failing("respond", ValueError("boom")), Hanging])
def test_another_environment_takes_the_place_of_one_that_failed(
    kind: type[Sound], tokenizer: PreTrainedTokenizerFast
) -> None:
    made: list[Sound] = []

    def make() -> Sound:
        made.append(kind())
        return made[-1]

    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    engine = ScriptedEngine(lambda request: [*tokenizer("ok")["input_ids"], end])
    envs = TextVectorEnv([make] * 2)
    Collector(envs, ChatCodec(tokenizer), engine).collect(
        [Task(seed, seed) for seed in range(9)], Sampling(max_tokens=6)
    )
    assert len(made) == 3
    assert made[2] in envs.envs
    assert sum(env.closed for env in made) == (kind is not Hanging)  # a thread is still in the one that hangs


def test_too_many_that_fail_end_the_rollout_with_the_traceback_of_one(tokenizer: PreTrainedTokenizerFast) -> None:
    class Bad(Sound):
        def respond(self, action: str) -> Any:
            return {}["service"]

    with pytest.raises(FailureRateError) as error:
        played(Bad, tokenizer)
    assert "50 of 50 episodes have no score since something failed" in str(error.value)
    assert "expected a share of at most 0.2 (max_failure_rate)" in str(error.value)
    assert "50 times: the environment of seed" in str(error.value)
    assert "KeyError: 'service'" in str(error.value)
    assert 'return {}["service"]' in str(error.value)
    with pytest.raises(FailureRateError, match="1 of 50 episodes"):
        played(failing("score", ValueError("boom")), tokenizer, max_failure_rate=0.0)


def test_an_interruption_is_no_fault_of_the_environment(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(KeyboardInterrupt):
        played(failing("respond", KeyboardInterrupt()), tokenizer)


def test_a_run_goes_on_and_its_files_say_what_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    @llmgym.register_env("Fragile-test-v0")
    class Fragile(llmgym.TextEnv):
        def begin(self) -> str:
            self.faulty = self.np_random.random() < 0.2
            return "Say something."

        def score(self, episode: llmgym.Episode) -> float:
            if self.faulty:
                sys.exit(0)
            return float(len(episode.actions[0]))

    try:
        agent = GRPO(
            env="Fragile-test-v0",
            output_dir=tmp_path,
            prompts_per_step=16,
            group_size=4,
            max_tokens=6,
            eval_episodes=8,
            max_failure_rate=0.9,
        )
        run = agent.train(steps=2)
        agent.close()
    finally:
        del gymnasium.registry["Fragile-test-v0"]
    lost = [metrics["env_errors"] for metrics in run.metrics]
    assert sum(lost) > 0
    assert all(count == metrics["scores_missing"] for count, metrics in zip(lost, run.metrics, strict=True))
    assert all(metrics["grad_norm"] > 0 for metrics in run.metrics)
    shards = sorted((run.path / "trajectories").glob("*.parquet"))
    written = [one for shard in shards for one in read_trajectories(shard) if one.failed]
    assert len(written) == sum(lost)
    assert all("SystemExit: 0" in str(one.score_error) for one in written)
    assert "episodes have no score, one since the environment of seed" in " ".join(capsys.readouterr().out.split())

"""What an agent cannot have caused is tried again, and what it may have caused is not."""

import functools
from collections import Counter
from pathlib import Path
from typing import Any

import faulty_env
import gymnasium
import pytest
from transformers import PreTrainedTokenizerFast

import llmgym
from llmgym.agents import GRPO
from llmgym.config.sections import Sampling
from llmgym.engines.scripted import ScriptedEngine
from llmgym.envs.isolated import IsolatedVectorEnv
from llmgym.envs.vector import TextVectorEnv
from llmgym.errors import InfrastructureError
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.collector import Collector
from llmgym.rollout.task import Task
from llmgym.rollout.trajectory import Trajectory

TASKS = [Task(seed, seed // 2) for seed in range(0, 24, 2) for _ in range(2)]
FAULTY = 6  # the seed that fails


class Dice(llmgym.TextEnv):
    """Three turns; what it says depends on its seed and on what it is told."""

    def begin(self) -> str:
        return f"{self.np_random.integers(1000)}"

    def respond(self, action: str) -> str | None:
        return f"{self.np_random.integers(1000)} {action}" if len(self.episode.turns) < 3 else None

    def score(self, episode: llmgym.Episode) -> float:
        return float(self.np_random.random())


def failing(method: str, error: type[Exception], times: int) -> type[Dice]:
    """An environment of which one method raises, the first times that it is called for the faulty seed."""
    calls: Counter[str] = Counter()

    def fails(self: Dice, *arguments: Any) -> Any:
        value = getattr(Dice, method)(self, *arguments)
        if self.np_random_seed == FAULTY and len(self.episode.turns) in (0, 2, 3):
            calls[method] += 1
            if calls[method] <= times:
                raise error("the sandbox is gone")
        return value

    return type("Failing", (Dice,), {method: fails})


def played(make: Any, tokenizer: PreTrainedTokenizerFast, **options: Any) -> list[Trajectory]:
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    engine = ScriptedEngine(lambda request: [*tokenizer(f"{request.seed % 97}")["input_ids"], end])
    envs = TextVectorEnv([make] * 4)
    trajectories = Collector(envs, ChatCodec(tokenizer), engine, **options).collect(TASKS, Sampling(max_tokens=9))
    envs.close()
    return trajectories


@pytest.mark.parametrize(
    ("method", "error"), [("begin", ValueError), ("respond", InfrastructureError), ("score", InfrastructureError)]
)
def test_an_episode_that_is_played_again_is_as_if_nothing_had_failed(
    method: str, error: type[Exception], tokenizer: PreTrainedTokenizerFast
) -> None:
    trajectories = played(failing(method, error, times=1), tokenizer)
    assert trajectories == played(Dice, tokenizer)
    assert sum(one.retries for one in trajectories) == 1


@pytest.mark.parametrize("method", ["respond", "score"])
def test_what_the_agent_may_have_caused_is_not_tried_again(method: str, tokenizer: PreTrainedTokenizerFast) -> None:
    trajectories = played(failing(method, ValueError, times=1), tokenizer)
    assert [one.seed for one in trajectories if one.failed] == [FAULTY]
    assert not any(one.retries for one in trajectories)


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_there_is_an_end_to_trying_again(retries: int, tokenizer: PreTrainedTokenizerFast) -> None:
    kind = failing("respond", InfrastructureError, times=10**9)
    lost = [one for one in played(kind, tokenizer, env_retries=retries) if one.failed]
    assert [(one.seed, one.retries) for one in lost] == [(FAULTY, retries)] * 2
    assert all("InfrastructureError: the sandbox is gone" in str(one.score_error) for one in lost)


def test_in_a_process_of_its_own_an_environment_is_tried_again_too(tokenizer: PreTrainedTokenizerFast) -> None:
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    engine = ScriptedEngine(lambda request: [*tokenizer("ok")["input_ids"], end])
    envs = IsolatedVectorEnv(functools.partial(faulty_env.Counting, fault="loses_its_sandbox"), 1, timeout=20, log=None)
    lost = Collector(envs, ChatCodec(tokenizer), engine, max_failure_rate=1.0, env_retries=2).collect(
        [Task(faulty_env.FAULTY_SEED, 0)], Sampling(max_tokens=9)
    )
    envs.close()
    assert [(one.failed, one.retries) for one in lost] == [(True, 2)]  # each process is a new one, and fails once


def test_a_run_counts_what_it_played_again(tmp_path: Path) -> None:
    seen: Counter[int] = Counter()

    @llmgym.register_env("Unsteady-test-v0")
    class Unsteady(llmgym.TextEnv):
        def begin(self) -> str:
            assert isinstance(self.np_random_seed, int)
            seen[self.np_random_seed] += 1
            if seen[self.np_random_seed] == 1:
                raise ConnectionError("no route to the sandbox")
            return "Say something."

        def score(self, episode: llmgym.Episode) -> float:
            return float(len(episode.actions[0]))

    small: dict[str, Any] = {"prompts_per_step": 4, "group_size": 2, "max_tokens": 6, "eval_episodes": 0}
    try:
        agent = GRPO(env="Unsteady-test-v0", output_dir=tmp_path, **small)
        run = agent.train(steps=2)
        agent.close()
    finally:
        del gymnasium.registry["Unsteady-test-v0"]
    assert run.metrics[1]["env_retries"] == 4  # one of each group; those of the first step were tried for an estimate
    assert all(row["episodes/trained"] == 8 for row in run.metrics)

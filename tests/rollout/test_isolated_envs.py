"""Environments in processes of their own: what one does costs its own episode, and all else is as in one process."""

import asyncio
import functools
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import faulty_env
import gymnasium
import numpy as np
import pytest
from faulty_calls import ENDS, HANGS, RAISES
from transformers import PreTrainedTokenizerFast

import llmgym
from llmgym.agents import GRPO, SPIN
from llmgym.calls import as_action
from llmgym.config.sections import Sampling
from llmgym.data.trajectories import read_trajectories
from llmgym.engines.scripted import ScriptedEngine
from llmgym.envs.isolated import IsolatedVectorEnv
from llmgym.envs.vector import TextVectorEnv
from llmgym.errors import ConfigError
from llmgym.registry import make_env, registered_envs
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.collector import Collector
from llmgym.rollout.task import Task
from llmgym.rollout.trajectory import Trajectory

FILE = str(Path(faulty_env.__file__))
TIMEOUT = 2.0
SAMPLING = Sampling(max_tokens=6)
BUILT_IN = [name for name in registered_envs() if name.startswith("llmgym/") and name != "llmgym/qa-v0"]


def isolated(make: Any, count: int, *arguments: Any, log: Path | None = None, **options: Any) -> IsolatedVectorEnv:
    return IsolatedVectorEnv(functools.partial(make, *arguments, **options), count, timeout=TIMEOUT, log=log)


def collected(
    envs: TextVectorEnv,
    tokenizer: PreTrainedTokenizerFast,
    seeds: range,
    scorer: Any = None,
    sampling: Sampling = SAMPLING,
) -> Any:
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    engine = ScriptedEngine(lambda request: [*tokenizer("ok")["input_ids"], end])
    trajectories = Collector(envs, ChatCodec(tokenizer), engine, scorer).collect(
        [Task(seed, seed) for seed in seeds], sampling
    )
    envs.close()
    return trajectories


@pytest.fixture(scope="module")
def sound(tokenizer: PreTrainedTokenizerFast) -> list[Trajectory]:
    """Return the episodes of 50 seeds, played in this process."""
    return collected(TextVectorEnv([faulty_env.Counting] * 4), tokenizer, range(50))


@pytest.mark.parametrize(
    ("fault", "method"),
    [*((fault, "respond") for fault in (*HANGS, *ENDS, *RAISES, "eats"))]
    + [(fault, method) for fault in ("backtracks", "leaves", "exits") for method in ("begin", "score")],
)
def test_one_seed_of_fifty_costs_its_own_episode_and_its_own_limit(
    fault: str, method: str, tokenizer: PreTrainedTokenizerFast, sound: list[Trajectory]
) -> None:
    make = functools.partial(faulty_env.Counting, fault=fault, method=method)
    envs = IsolatedVectorEnv(make, 4, timeout=60.0 if fault == "eats" else TIMEOUT)  # to take memory takes its time
    begun = time.monotonic()
    played = collected(envs, tokenizer, range(50))
    took = time.monotonic() - begun
    seed = faulty_env.FAULTY_SEED
    lost = played[seed]
    assert played[:seed] + played[seed + 1 :] == sound[:seed] + sound[seed + 1 :]
    assert (lost.ending, lost.score) == ("env_timeout" if fault in HANGS else "env_error", None)
    reason = {"leaves": "exit code 0", "crashes": "SIGSEGV", "kills_itself": "SIGKILL", "eats": "MemoryError"}
    expected = reason.get(fault, "took longer than 2 s" if fault in HANGS else {"exits": "SystemExit"}.get(fault, ""))
    assert lost.score_error is not None
    assert f"the environment of seed {seed} failed in" in lost.score_error
    assert expected in lost.score_error
    if fault in RAISES and fault != "recurses":
        assert f'File "{faulty_env.__file__}"' in lost.score_error, "it says where"
    assert fault == "eats" or took < (TIMEOUT if fault in HANGS else 0) + 15


def test_what_holds_a_loop_between_calls_finds_it_again(tokenizer: PreTrainedTokenizerFast) -> None:
    here = collected(TextVectorEnv([faulty_env.Connected] * 2), tokenizer, range(6))
    assert {one.score for one in here} == {1.0}
    assert collected(isolated(faulty_env.Connected, 2), tokenizer, range(6)) == here


def test_a_later_fault_of_an_environment_takes_no_score_from_earlier_episodes(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    async def slowly(episode: llmgym.Episode) -> float:
        await asyncio.sleep(0.3)
        return 1.0

    scorer = llmgym.FunctionScorer(slowly, "slowly")
    played = collected(isolated(faulty_env.Judged, 1, leaves=5), tokenizer, range(8), scorer)
    assert [one.score for one in played] == [1.0] * 5 + [None] + [1.0] * 2


def test_an_episode_that_cannot_be_released_costs_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    sampling = Sampling(max_tokens=6, max_episode_tokens=6)
    for kind in (TextVectorEnv([faulty_env.Unreleasable] * 2), isolated(faulty_env.Unreleasable, 2)):
        played = collected(kind, tokenizer, range(6), sampling=sampling)
        assert {one.ending for one in played} == {"max_tokens"}


def test_what_is_printed_before_a_crash_is_kept(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    log = tmp_path / "environments.log"
    collected(isolated(faulty_env.Judged, 1, log=log, leaves=5), tokenizer, range(8), constant_scorer())
    assert log.read_text().splitlines() == ["seed 5 leaves"] * 2  # a reset that fails is tried once more


def constant_scorer() -> llmgym.FunctionScorer:
    return llmgym.FunctionScorer(lambda episode: 1.0, "one")


def test_memory_is_what_is_taken_and_not_what_is_mapped(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    index = tmp_path / "index"
    with index.open("wb") as file:
        file.truncate(3 * 2**30)
    played = collected(isolated(faulty_env.Mapping, 1, index=str(index)), tokenizer, range(2))
    assert {one.score for one in played} == {1.0}


def test_what_environments_print_goes_to_a_file_and_not_between_the_messages(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, sound: list[Trajectory]
) -> None:
    log = tmp_path / "run" / "environments.log"
    envs = IsolatedVectorEnv(functools.partial(faulty_env.Counting, fault="prints"), 2, timeout=60.0, log=log)
    assert collected(envs, tokenizer, range(10)) == sound[:10]
    assert log.stat().st_size == 10 * 2**20


@pytest.mark.parametrize("fault", ["forks", "starts_threads"])
def test_a_process_or_a_thread_that_is_left_changes_nothing(
    fault: str, tokenizer: PreTrainedTokenizerFast, sound: list[Trajectory]
) -> None:
    assert collected(isolated(faulty_env.Counting, 2, fault=fault), tokenizer, range(10)) == sound[:10]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_environment_is_the_same_in_a_process_of_its_own(name: str) -> None:
    make = functools.partial(make_env, name)
    here, there = TextVectorEnv([make] * 2), IsolatedVectorEnv(make, 2, timeout=30.0)
    sampling = Sampling()
    for what in ("seats", "turn_limit", "has_score"):
        assert getattr(here, what) == getattr(there, what)
    assert here.within_limits(sampling) == there.within_limits(sampling)
    for index in (0, 1):
        seen = here.reset_one(index, index)
        assert there.reset_one(index, index) == seen
        assert there.opening(index, seen[0]) == here.opening(index, seen[0])
        replies: Iterator[Any] = here.envs[index].unwrapped.expert()  # type: ignore[attr-defined]
        over = False
        while not over:
            assert there.seat(index) == here.seat(index)
            assert there.tools(index) == here.tools(index)
            reply = as_action(next(replies))
            result = here.step_one(index, reply)
            assert there.step_one(index, reply) == result
            over = result.terminated or result.truncated
        for seat in range(len(here.seats)):
            first, second = here.episode(index, seat), there.episode(index, seat)
            assert first is not None
            assert second is not None
            assert type(first.task) is type(second.task)
            assert replace(first, task=None) == replace(second, task=None)
    here.close()
    there.close()


@pytest.mark.parametrize("kind", [faulty_env.Counting, faulty_env.Judged])
def test_a_scorer_of_a_run_sees_the_task_and_the_environment_tells_a_success_from_its_score(
    kind: type[llmgym.TextEnv], tokenizer: PreTrainedTokenizerFast
) -> None:
    scorer = llmgym.FunctionScorer(lambda episode: float(episode.task["number"] % 3), "thirds")
    here = collected(TextVectorEnv([kind] * 4), tokenizer, range(40), scorer)
    assert collected(isolated(kind, 4), tokenizer, range(40), scorer) == here
    assert {one.parts["success"] for one in here} == {0.0, 1.0}


def test_an_environment_of_gymnasium_is_played_as_in_one_process(tokenizer: PreTrainedTokenizerFast) -> None:
    plain = functools.partial(Plain, 3)
    here = collected(TextVectorEnv([plain] * 2), tokenizer, range(8))
    assert collected(IsolatedVectorEnv(plain, 2, timeout=5.0), tokenizer, range(8)) == here
    assert [one.score for one in here] == [3.0] * 8


class Plain(gymnasium.Env[str, str]):
    """An environment that knows nothing of llmgym, and reports what no process can be given."""

    observation_space = action_space = llmgym.UnicodeText()

    def __init__(self, turns: int) -> None:
        self._turns = turns

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        """Begin."""
        super().reset(seed=seed)
        self._left = self._turns
        return str(seed), {"board": object()}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Go on."""
        self._left -= 1
        return action, 1.0, False, self._left == 0, {"left": np.int64(self._left), "board": object()}


def test_a_task_that_no_process_can_be_given_matters_only_to_a_scorer(tokenizer: PreTrainedTokenizerFast) -> None:
    alone = collected(isolated(faulty_env.Unsendable, 2), tokenizer, range(3))
    assert alone == collected(TextVectorEnv([faulty_env.Unsendable] * 2), tokenizer, range(3))
    scorer = llmgym.FunctionScorer(lambda episode: 1.0, "one")
    lost = collected(isolated(faulty_env.Unsendable, 2), tokenizer, range(3), scorer)
    assert {one.score for one in lost} == {None}
    assert "a scorer of a run is given episode.task" in str(lost[0].score_error)


def test_a_task_that_this_process_cannot_read_costs_its_episode(tokenizer: PreTrainedTokenizerFast) -> None:
    scorer = llmgym.FunctionScorer(lambda episode: 1.0, "one")
    lost = collected(isolated(faulty_env.Unreadable, 2), tokenizer, range(2), scorer)
    assert {one.ending for one in lost} == {"env_error"}
    assert "what it holds cannot be read here" in str(lost[0].score_error)


def test_flags_reach_a_scorer(tokenizer: PreTrainedTokenizerFast) -> None:
    def flagged(episode: llmgym.Episode) -> float:
        return float(episode.task == {"flags": re.IGNORECASE | re.MULTILINE, "none": re.RegexFlag(0)})

    played = collected(isolated(faulty_env.Flagged, 2), tokenizer, range(2), llmgym.FunctionScorer(flagged, "flags"))
    assert [(one.score, one.score_error) for one in played] == [(1.75, None)] * 2, "with what its turns earned"


@pytest.mark.parametrize("limit", [float("inf"), 1e10])
def test_a_limit_without_end_is_one(limit: float, tokenizer: PreTrainedTokenizerFast) -> None:
    played = collected(isolated(faulty_env.Patient, 1, limit=limit), tokenizer, range(1))
    assert played[0].ending not in ("env_error", "env_timeout"), played[0].score_error


def test_what_cannot_be_made_in_another_process_is_one_error_at_the_start() -> None:
    with pytest.raises(ConfigError, match="isolate_env: the environment cannot be made in another process"):
        isolated(lambda: faulty_env.Counting(), 2)
    with pytest.raises(ConfigError, match=r"Workers cannot be started: .*argument 'colour'"):
        isolated(faulty_env.Counting, 2, colour="red")
    with pytest.raises(ConfigError, match="Workers cannot be started: their process ended with exit code 3"):
        isolated(faulty_env.Leaving, 2)


def test_an_environment_that_cannot_be_closed_ends_all_the_same() -> None:
    for fault, least in (("raises", 0.0), ("sleeps", 5.0)):
        envs = isolated(faulty_env.Counting, 3, fault=fault, method="close")
        for index in range(3):
            envs.reset_one(index, faulty_env.FAULTY_SEED)
        begun = time.monotonic()
        envs.close()
        assert least <= time.monotonic() - begun < least + 3, "all of them together take as long as one"


def test_no_process_is_left_when_the_environments_are_closed() -> None:
    before = processes()
    envs = isolated(faulty_env.Counting, 3)
    for index in range(3):
        envs.reset_one(index, index)
    assert len(processes() - before) == 4
    envs.close()
    until = time.monotonic() + 5.0
    while processes() - before and time.monotonic() < until:
        time.sleep(0.02)
    assert not processes() - before


def processes() -> set[int]:
    """Return all processes that fork workers, or are some."""
    found = subprocess.run(["pgrep", "-f", "llmgym.workers.forker"], capture_output=True, text=True, check=False).stdout
    return set(map(int, found.split()))


def test_a_run_with_isolated_environments_plays_the_episodes_of_the_run_without(tmp_path: Path) -> None:
    played = []
    for isolate in (False, True):
        GRPO(
            env=f"{FILE}:FaultyCounting-v0",
            model="tiny",
            steps=1,
            prompts_per_step=2,
            group_size=2,
            eval_episodes=4,
            max_tokens=8,
            isolate_env=isolate,
            output_dir=tmp_path / str(isolate),
        ).train()
        (path,) = (tmp_path / str(isolate)).rglob("*.parquet")
        played.append([(one.tokens, one.mask, one.score, one.parts, one.ending) for one in read_trajectories(path)])
    assert played[0] == played[1]


def test_an_expert_of_an_isolated_environment_is_asked_in_this_process(tmp_path: Path) -> None:
    SPIN(
        env="Countdown",
        isolate_env=True,
        steps=1,
        prompts_per_step=2,
        max_tokens=8,
        eval_episodes=0,
        output_dir=tmp_path,
    ).train()
    (path,) = tmp_path.rglob("*.parquet")
    assert {one.demonstrated for one in read_trajectories(path)} == {False}, "shards have what was played"


def test_rows_of_a_data_set_are_read_once_and_sent(tmp_path: Path) -> None:
    data = tmp_path / "sums.csv"
    data.write_text("prompt,answer\n" + "".join(f"{n} + 1?,{n + 1}\n" for n in range(12)))
    played = []
    for isolate in (False, True):
        options: dict[str, Any] = {"eval_share": 0.25, "scorer": "exact", "isolate_env": isolate}
        output = tmp_path / str(isolate)
        GRPO(
            env="qa",
            data=data,
            model="tiny",
            steps=2,
            prompts_per_step=4,
            group_size=2,
            max_tokens=4,
            output_dir=output,
            **options,
        ).train()
        paths = sorted(output.rglob("*.parquet"))
        played.append([(one.data_row, one.messages[0]) for path in paths for one in read_trajectories(path)])
    assert played[0] == played[1]
    assert len({row for row, _ in played[0]}) == 8, "two steps of four rows, each of them another"


def test_a_script_that_registers_its_environment_and_starts_the_run(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import os\nimport llmgym\nfrom llmgym.agents import GRPO\n\n"
        '@llmgym.register_env("Leaving-v0")\n'
        "class Leaving(llmgym.TextEnv):\n"
        "    def begin(self):\n        return str(self.np_random_seed)\n\n"
        "    def respond(self, action):\n"
        "        if self.np_random_seed % 8 == 0:\n            os._exit(0)\n\n"
        "    def score(self, episode):\n        return float(len(episode.actions[0]))\n\n"
        'if __name__ == "__main__":\n'
        "    GRPO(env='Leaving-v0', steps=2, prompts_per_step=4, group_size=2, eval_episodes=0, max_tokens=8,\n"
        "         isolate_env=True, max_failure_rate=0.9).train()\n"
        "    print('the run is over')\n"
    )
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "the run is over" in done.stdout
    script.write_text(script.read_text().replace('if __name__ == "__main__":', "if True:"))
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "guard what a script runs with `if __name__" in done.stderr


def test_a_registration_in_a_script_of_a_class_of_a_module(tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(Path(FILE).read_text().replace("FaultyCounting-v0", "ModuleCounting-v0"))
    (tmp_path / "train.py").write_text(
        "import sys\n"
        f"sys.path += [{str(Path(FILE).parent)!r}, {str(Path(FILE).parents[1])!r}]\n"
        "import gymnasium\nfrom counting import Counting\nfrom llmgym.agents import GRPO\n\n"
        'gymnasium.register("Scripted-v0", entry_point=Counting, max_episode_steps=2)\n'
        'if __name__ == "__main__":\n'
        "    GRPO(env='Scripted-v0', steps=1, prompts_per_step=2, group_size=2, eval_episodes=0, max_tokens=8,\n"
        "         isolate_env=True).train()\n"
        "    print('the run is over')\n"
    )
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert "the run is over" in done.stdout, done.stderr[-2000:]

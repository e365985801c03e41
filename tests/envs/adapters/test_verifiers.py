"""Tasksets of verifiers as environments: right answers earn the package's own reward, and no failure counts as a 0."""

import random
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from episodes import episodes, episodes_elsewhere

import llmgym
from llmgym.errors import ConfigError, DataError, UnknownNameError
from llmgym.registry import make_env

pytest.importorskip("verifiers", reason="verifiers is not installed")

import verifiers.v1 as vf

from llmgym.envs.adapters.verifiers.tasks import load

SUMS, GUESS, FAULTY = "verifiers:sums_taskset", "verifiers:guess_taskset", "verifiers:faulty_taskset"
JUNK = ["", "abc", "\x00", "\ud800", "9" * 5000, "\\boxed{" * 999, "\\boxed{9^{9^{9^9}}}", "{}", "\r\n\u2028"]


@pytest.fixture(scope="module")
def made() -> Iterator[Callable[[str], Any]]:
    """Environments that keep the processes of their tasksets until the tests are over."""
    envs: dict[str, Any] = {}

    def make(name: str) -> Any:
        if name not in envs:
            envs[name] = make_env(name).unwrapped
        return envs[name]

    yield make
    for env in envs.values():
        env.close()


def answer(env: Any) -> str:
    task = env.episode.task
    return f"It is \\boxed{{{task['answer']}}}." if "answer" in task else str(task["number"])


def with_fault(env: Any, fault: str) -> Any:
    """Reset an environment to a task with a fault."""
    for seed in range(1000):
        try:
            env.reset(seed=seed)
        except DataError:
            if fault == "image":
                raise
            continue
        if env.episode.task["fault"] == fault:
            return env
    raise AssertionError(fault)


@pytest.mark.parametrize("name", [SUMS, GUESS])
def test_the_right_answer_earns_the_top_reward_in_fifty_episodes(name: str, made: Callable[[str], Any]) -> None:
    env = made(name)
    for seed in range(50):
        env.reset(seed=seed)
        _, reward, terminated, truncated, info = env.step(answer(env))
        assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, 1.0)


def test_a_wrong_answer_earns_nothing_and_metrics_are_parts(made: Callable[[str], Any]) -> None:
    env = made(SUMS)
    env.reset(seed=0)
    assert env.step("\\boxed{-1}")[1:] == (0.0, True, False, {"success": 0.0, "correct": 0.0, "length": 10.0})


def test_every_turn_is_told_and_rewards_are_weighed(made: Callable[[str], Any]) -> None:
    env = made(GUESS)
    first, _ = env.reset(seed=0)
    assert first.startswith("Guess a number")
    assert env.episode.system_prompt == "Say a number."
    assert env.step("-5")[0].startswith("higher, mood")
    assert env.step("100")[0].startswith("lower, mood")
    _, reward, terminated, _, info = env.step(answer(env))
    assert (reward, terminated) == (pytest.approx(0.8), True)
    assert (info["guessed"], info["turns"], info["finalized"]) == (1.0, -0.2, 1.0)


def test_a_rule_of_the_task_ends_an_episode_and_a_limit_of_turns_cuts_it_off(made: Callable[[str], Any]) -> None:
    env = made(GUESS)
    env.reset(seed=0)
    assert env.step("I give up")[1:4] == (0.0, True, False)
    limited = make_env(GUESS, max_turns=2)
    limited.reset(seed=0)
    steps = [limited.step("no number") for _ in range(2)]
    assert [step[1:4] for step in steps] == [(0.0, False, False), (-0.1, False, True)]
    limited.close()


@pytest.mark.parametrize("name", [SUMS, GUESS])
def test_it_passes_the_checkers(name: str) -> None:
    env = make_env(name, render_mode="ansi")
    llmgym.check_env(env, seeds=3)
    env.close()


@pytest.mark.parametrize("name", [SUMS, GUESS])
def test_an_episode_is_the_same_in_another_process_in_another_order(name: str) -> None:
    assert episodes(name, [0, 1, 2]) == episodes_elsewhere(name, [2, 1, 0], hash_seed=77)


def test_episodes_that_are_played_in_turn_do_not_disturb_each_other_or_the_global_generator() -> None:
    random.seed(7)
    one, two = (make_env(GUESS).unwrapped for _ in range(2))
    assert one.reset(seed=3) == two.reset(seed=3)
    for reply in ["1", "no", "I give up"]:
        assert one.step(reply) == two.step(reply)
    assert random.random() == random.Random(7).random()
    one.close()
    two.close()


@pytest.mark.parametrize("name", [SUMS, GUESS])
def test_no_reply_raises_or_spoils_the_next_episode(name: str, made: Callable[[str], Any]) -> None:
    env = made(name)
    for reply in JUNK:
        env.reset(seed=0)
        assert env.step(reply)[1] <= 0.0
        assert env.scored is None or env.scored.error is None
    env.reset(seed=0)
    assert env.step(answer(env))[1] == 1.0


def test_no_task_of_training_is_evaluated() -> None:
    told = []
    for split in ["train", "eval"]:
        env = make_env(SUMS, split=split).unwrapped
        told.append({env.reset(seed=seed)[0] for seed in range(300)})
        env.close()
    assert not told[0] & told[1]
    assert [len(one) for one in told] == [pytest.approx(80, abs=10), pytest.approx(20, abs=10)]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raises", "ZeroDivisionError: the judge is away"),
        ("nan", "faulty: expected a finite number, got nan"),
        ("deadline", "TimeoutError"),
        ("exits", "SystemExit: 3"),
    ],
)
def test_a_signal_that_fails_gives_no_score(fault: str, message: str, made: Callable[[str], Any]) -> None:
    env = with_fault(made(FAULTY), fault)
    _, reward, terminated, _, info = env.step("Yes.")
    assert (reward, terminated, info) == (0.0, True, {"score_missing": 1.0})
    assert message in env.scored.error


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("environment", "ZeroDivisionError: the game is broken"),
        ("twice", "one conversation per episode"),
    ],
)
def test_an_exception_costs_its_episode_only(fault: str, message: str, made: Callable[[str], Any]) -> None:
    env = with_fault(made(FAULTY), fault)
    with pytest.raises(RuntimeError, match=message):
        env.step("Yes.")
    assert with_fault(env, "none").step("Yes.")[1] == 1.0


def test_an_image_in_a_prompt_costs_its_episode(made: Callable[[str], Any]) -> None:
    with pytest.raises(DataError, match="expected a string as content"):
        with_fault(made(FAULTY), "image")


def test_code_that_hangs_costs_its_episode_and_the_next_one_is_played() -> None:
    env = make_env(FAULTY, timeout=1.0).unwrapped
    with_fault(env, "hangs")
    with pytest.raises(RuntimeError, match="longer than its timeout of 1 s"):
        env.step("Yes.")
    assert with_fault(env, "none").step("Yes.")[1] == 1.0
    env.close()


def test_environments_of_a_taskset_share_a_process_which_ends_with_the_last() -> None:
    envs = gymnasium.make_vec("llmgym/Verifiers-v0", num_envs=3, task="sums_taskset", num_tasks=50)
    inner = [env.unwrapped for env in envs.envs]
    assert len({env._process for env in inner}) == 1
    process = inner[0]._process._process
    observations, _ = envs.reset(seed=5)
    assert len(set(observations)) > 1
    envs.close()
    del inner
    assert process.wait(timeout=10) is not None


def module(monkeypatch: pytest.MonkeyPatch, *classes: type) -> str:
    """Make classes a module that can be imported."""
    name = "taskset_in_a_test"
    made = types.ModuleType(name)
    made.__dict__.update({one.__name__: one for one in classes}, __all__=[one.__name__ for one in classes])
    made.__spec__ = types.SimpleNamespace(name=name)  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, name, made)
    return name


class Rewarded(vf.Task):
    @vf.reward
    async def right(self, trace: vf.Trace) -> float:
        return 1.0


class InContainer(Rewarded):
    NEEDS_CONTAINER = True


class InRuntime(vf.Task):
    @vf.reward
    async def runs(self, trace: vf.Trace, runtime: vf.Runtime) -> float:
        return 1.0


class SetUp(Rewarded):
    async def setup(self, trace: vf.Trace, runtime: vf.Runtime) -> None: ...


class Intercepting(Rewarded):
    @vf.intercept
    async def look(self, request: vf.Request) -> None: ...


class Stopping(Rewarded):
    @vf.stop
    async def look(self, response: vf.Response) -> bool:
        return False


class WithTools(Rewarded):
    @classmethod
    def toolsets(cls, config: vf.TaskConfig) -> list[Any]:
        return [vf.Toolset(vf.ToolsetConfig())]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (InContainer, "its tasks need a container"),
        (InRuntime, "InRuntime.runs needs a runtime"),
        (SetUp, "SetUp.setup needs a runtime"),
        (Intercepting, "Intercepting.look looks at requests of a harness"),
        (Stopping, "Stopping.look looks at requests of a harness"),
        (WithTools, r"its tools are MCP servers \(toolsets\)"),
    ],
)
def test_tasks_that_need_more_than_a_conversation_are_refused(
    kind: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Few(vf.Taskset[kind, vf.TasksetConfig]):
        def load(self) -> list[Any]:
            return [kind(vf.TaskData(prompt="Go."))]

    name = module(monkeypatch, Few)
    with pytest.raises(ConfigError, match=f"verifiers:{name} is refused: {reason}"):
        load(name, {})


class TwoConfig(vf.EnvConfig):
    solver: vf.AgentConfig = vf.AgentConfig()
    judge: vf.AgentConfig = vf.AgentConfig()


class Two(vf.Env[TwoConfig]):
    async def run(self, task: Any, agents: vf.Agents) -> None: ...


class Plain(vf.Taskset[Rewarded, vf.TasksetConfig]):
    def load(self) -> list[Any]:
        return [Rewarded(vf.TaskData(prompt="Go."))]


class OwnHarness(vf.Harness[vf.HarnessConfig]):
    async def launch(self, *arguments: Any) -> Any: ...


class Empty(vf.Taskset[Rewarded, vf.TasksetConfig]):
    def load(self) -> list[Any]:
        return []


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        ((Plain, Two), r"is refused: it has 2 agents \(solver, judge\), and one can be played"),
        ((Plain, OwnHarness), "is refused: it is played by a harness of its own"),
        ((Empty,), "has no tasks"),
        ((), "exports no Taskset subclass"),
        ((Plain, Empty), "exports 2 Taskset subclasses"),
    ],
)
def test_and_so_are_those_that_one_agent_cannot_play(
    classes: tuple[type, ...], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = module(monkeypatch, *classes)
    with pytest.raises(ConfigError, match=f"verifiers:{name} .*{reason}"):
        load(name, {})


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(UnknownNameError, match=r"taskset 'textarenna' not found.*Did you mean 'textarena'"):
        make_env("verifiers:textarenna")
    with pytest.raises(UnknownNameError, match="exporting its Taskset subclass"):
        load("sums_taskset:SumsTaskset", {})
    with pytest.raises(ConfigError, match=r"no argument 'num_task'\. Did you mean 'num_tasks'"):
        load("sums_taskset", {"num_task": 3})
    with pytest.raises(ConfigError, match="refuses its arguments: num_tasks: Input should be a valid integer"):
        load("sums_taskset", {"num_tasks": "x"})
    with pytest.raises(ConfigError, match="split has to be one of 'train', 'eval', got 'test'"):
        make_env(SUMS, split="test")
    with pytest.raises(ConfigError, match="no task of the split 'eval'"):
        make_env(SUMS, split="eval", num_tasks=1)


def test_a_module_that_ends_its_process_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exits.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="its process ended while it was loaded"):
        make_env("verifiers:exits")


def test_fields_of_the_configuration_are_arguments_also_those_with_a_name_that_is_taken() -> None:
    first = [task.data.prompt for task in load("sums_taskset", {"num_tasks": 3})[1]]
    env = make_env(SUMS, num_tasks=3, config={"split": "test"}).unwrapped
    assert len(first) == 3
    assert env.reset(seed=0)[0] not in first
    env.close()

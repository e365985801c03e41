"""The Berkeley Function Calling Leaderboard's tasks of several turns, with its own checker as judge."""

import contextlib
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

import llmgym
from llmgym.calls import Action, ToolCall, as_action, read_calls
from llmgym.envs.serving import Session
from llmgym.errors import ConfigError
from llmgym.registry import make_env

pytest.importorskip("bfcl_eval", reason="pip install --no-deps bfcl-eval==2026.3.23")

from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import multi_turn_checker

from llmgym.envs.adapters.bfcl.environment import BFCL, TASKS
from llmgym.envs.adapters.bfcl.package import DATA

Replies = list[str]


def played(env: BFCL, index: int, replies: Sequence[str]) -> float:
    """Play one task, and go on saying that a request is done once there are no more replies."""
    env.reset(seed=0, options={"index": index})
    total, over, left = 0.0, False, list(replies)
    while not over:
        _, reward, terminated, truncated, _ = env.step(left.pop(0) if left else "Done.")
        total, over = total + reward, terminated or truncated
    return total


def solution(env: BFCL, index: int) -> Replies:
    env.reset(seed=0, options={"index": index})
    return [as_action(reply) for reply in env.expert()]


def changed(replies: Replies, rng: random.Random) -> Replies:
    """Return replies with one thing changed: a call left out, twice, or with another value, or a reply left out."""
    replies = list(replies)
    at = rng.choice([i for i, reply in enumerate(replies) if read_calls(reply).calls])
    calls = [call for call in read_calls(replies[at]).calls if isinstance(call, ToolCall)]
    one = rng.randrange(len(calls))
    match rng.randrange(5):
        case 0:
            calls.pop(one)
        case 1:
            calls.append(calls[one])
        case 2:
            arguments = {name: value for name, value in calls[one].arguments.items() if rng.random() < 0.5}
            calls[one] = ToolCall(calls[one].name, arguments)
        case 3:
            arguments = {n: f"{v}x" if isinstance(v, str) else v for n, v in calls[one].arguments.items()}
            calls[one] = ToolCall(calls[one].name, arguments)
        case 4:
            rng.shuffle(calls)
    replies[at : at + 1] = [as_action(calls)] if calls else []
    return replies


def judged(task: str, index: int, env: BFCL, name: str) -> bool:
    """Ask the package's own checker about the episode that was played last."""
    lines = (DATA / f"BFCL_v4_{task}.json").read_text().splitlines()
    right = (DATA / "possible_answer" / f"BFCL_v4_{task}.json").read_text().splitlines()
    said: list[list[list[str]]] = [[]]
    for turn in env.episode.turns:
        calls = [call for call in read_calls(turn.action).calls if isinstance(call, ToolCall)]
        if calls:
            said[-1].append(
                [f"{one.name}({', '.join(f'{k}={v!r}' for k, v in one.arguments.items())})" for one in calls]
            )
        else:
            said.append([])
    with contextlib.redirect_stdout(io.StringIO()):
        found = multi_turn_checker(
            said[:-1], json.loads(right[index])["ground_truth"], json.loads(lines[index]), task, name
        )
    return bool(found["valid"])


@pytest.mark.parametrize("task", TASKS)
def test_the_packages_own_calls_earn_the_top_and_doing_nothing_earns_nothing(task: str) -> None:
    env = BFCL(task)
    for index in range(200):
        assert played(env, index, solution(env, index)) == 1.0
        assert played(env, index, []) == 0.0


@pytest.mark.parametrize("task", TASKS)
def test_the_packages_own_checker_says_the_same_of_fifty_tasks_and_of_changed_calls(task: str) -> None:
    env, rng, verdicts = BFCL(task), random.Random(0), set()
    for index in rng.sample(range(200), 50):
        for attempt in range(4):
            right = solution(env, index)
            reward = played(env, index, changed(right, rng) if attempt else right)
            assert judged(task, index, env, f"attempt{attempt}") == bool(reward), (index, env.episode.actions)
            verdicts.add((bool(attempt), bool(reward)))
    assert verdicts == {(False, True), (True, True), (True, False)}


@pytest.mark.parametrize("task", TASKS)
def test_every_category_keeps_the_contract(task: str) -> None:
    llmgym.check_env(make_env(f"bfcl:{task}"), seeds=20)


def test_another_process_draws_the_same_tasks_whatever_its_hash_seed() -> None:
    program = """
import json
from llmgym.envs.adapters.bfcl.environment import BFCL
from llmgym.envs.experts import play_expert
env = BFCL("multi_turn_base")
print(json.dumps([[(turn.observation, turn.action) for turn in play_expert(env, seed)[0].turns] for seed in range(20)]))
"""
    heard = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(heard) == 1


def test_a_request_takes_twenty_one_replies_with_calls_at_most() -> None:
    env = BFCL("multi_turn_base")
    env.reset(seed=0, options={"index": 0})
    looking = as_action(ToolCall("pwd", {}))
    for _ in range(20):
        assert env.step(looking)[2:4] == (False, False)
    assert env.step(looking)[1:4] == (0.0, False, True)


def test_a_function_is_missing_until_the_user_shows_it() -> None:
    env = BFCL("multi_turn_miss_func")
    env.reset(seed=0, options={"index": 0})
    names = lambda: [schema["function"]["name"] for schema in env.toolbox.schemas]  # noqa: E731
    sort = as_action(ToolCall("sort", {"file_name": "final_report.pdf"}))
    assert "sort" not in names()
    assert "there is no tool 'sort'" in env.step(sort)[0]
    for _ in range(3):
        said, *_ = env.step("Done.")
    assert said.startswith('{"type": "function", "function": {"name": "sort"')
    assert said.endswith("I have updated some more functions you can choose from. What about now?")
    assert "sort" in names()
    assert "there is no tool" not in env.step(sort)[0]
    env.reset(seed=0, options={"index": 0})
    assert "sort" not in names()


def test_what_is_said_in_a_call_is_never_evaluated() -> None:
    env = BFCL("multi_turn_base")
    env.reset(seed=0, options={"index": 0})
    for name in ("__class__", "_load_scenario", "pwd()", "__import__('os').getpid"):
        said, *_ = env.step(as_action(ToolCall(name, {})))
        assert "there is no tool" in said
    said, *_ = env.step(as_action(ToolCall("mkdir", {"dir_name": "__import__('os').getpid()"})))
    assert "getpid()" in env.step(as_action(ToolCall("ls", {})))[0]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("power", {"base": 10, "exponent": 10**9}),
        ("logarithm", {"value": 2, "base": 10, "precision": 10**9}),
        ("multiply", {"a": "x", "b": 10**10}),
        ("mean", {"numbers": "x"}),
    ],
)
def test_a_calculation_without_end_is_refused(name: str, arguments: dict[str, Any]) -> None:
    env = BFCL("multi_turn_base")
    index = next(i for i, one in enumerate(env._tasks) if "MathAPI" in one.classes)
    env.reset(seed=0, options={"index": index})
    said, *_ = env.step(as_action(ToolCall(name, arguments)))
    assert "rror" in said


def test_schemas_have_the_types_of_json() -> None:
    def kinds(schema: Any) -> Iterator[str]:
        if isinstance(schema, dict):
            if isinstance(schema.get("type"), str):
                yield schema["type"]
            for one in schema.values():
                yield from kinds(one)

    env = BFCL("multi_turn_base")
    found = set()
    for index in range(200):
        env.reset(seed=0, options={"index": index})
        found |= {kind for one in env.toolbox.schemas for kind in kinds(one["function"]["parameters"])}
    assert found == {"object", "string", "number", "integer", "array", "boolean"}


def test_an_episode_leaves_the_task_as_it_was() -> None:
    env = BFCL("multi_turn_base")
    before = repr(env._tasks[90])
    played(env, 90, solution(env, 90))  # a function adds to a list that it was given
    assert repr(env._tasks[90]) == before


def test_calls_in_other_words_are_the_same_calls() -> None:
    env = BFCL("multi_turn_base")
    replies = [Action("(native)", "", read_calls(one).calls) for one in solution(env, 3)]
    assert played(env, 3, replies) == 1.0


@pytest.mark.parametrize("task", ["multi_turn_bas", "simple_python", "memory"])
def test_a_category_that_is_none_is_refused(task: str) -> None:
    with pytest.raises(ConfigError, match=r"bfcl: expected one of the categories multi_turn_base, .*, got"):
        make_env(f"bfcl:{task}")


@pytest.mark.parametrize("index", [-1, 200, "3", 1.5])
def test_an_index_that_is_none_is_refused(index: Any) -> None:
    with pytest.raises(ConfigError, match="index: expected a whole number below 200"):
        BFCL("multi_turn_base").reset(options={"index": index})


def test_a_session_tells_its_client_of_tools_that_come_later() -> None:
    env, session = BFCL("multi_turn_miss_func"), Session(lambda: BFCL("multi_turn_miss_func"))
    for index in range(10):
        replies = solution(env, index)
        env.reset(seed=0, options={"index": index})
        tools = ()
        asked = [("reset", {"seed": 0, "index": index}), *(("step", {"message": reply}) for reply in replies)]
        for kind, data in asked:
            if kind == "step":
                env.step(data["message"])
            answer = session.answer(json.dumps({"type": kind, "data": data}))
            assert answer is not None
            tools = answer["data"]["observation"]["metadata"].get("tools", tools)
            assert list(tools) == list(env.toolbox.schemas)
        assert answer["data"]["reward"] == 1.0
    session.close()

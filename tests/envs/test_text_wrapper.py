"""Gymnasium's own environments, played in words: nothing of theirs is lost, and silence does not pay."""

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playing import told
from transformers import PreTrainedTokenizerFast

import llmgym
from llmgym.config.sections import Sampling
from llmgym.engines.scripted import ScriptedEngine
from llmgym.envs.reading import last_named
from llmgym.envs.tabular import shortest_plan
from llmgym.envs.text_env import TextEnv
from llmgym.envs.text_wrapper import TextWrapper
from llmgym.errors import ConfigError
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.collector import Collector
from llmgym.rollout.task import Task

FROZEN_LAKE: Any = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "gymnasium_text.py"))["FrozenLakeText"]

PLACES = ("red", "green", "yellow", "blue", "taxi")
TAXI = {"south": 0, "north": 1, "east": 2, "west": 3, "pick up": 4, "drop off": 5}
WALKS = {"up": 0, "right": 1, "down": 2, "left": 3}
CARDS = {"stick": 0, "hit": 1}


def taxi_map(env: Any, state: int) -> str:
    row, column, passenger, goal = env.unwrapped.decode(state)
    rows = [list(line) for line in env.unwrapped.desc.astype(str)]
    rows[row + 1][2 * column + 1] = "@"
    where = f"The passenger is at {PLACES[passenger]} and wants to go to {PLACES[goal]}."
    return "\n".join(["".join(line) for line in rows] + [where])


class Taxi(TextWrapper):
    def __init__(self, **options: Any) -> None:
        super().__init__(gymnasium.make("Taxi-v4"), taxi_map, TAXI, rules="You drive the taxi (@).", **options)

    def expert(self) -> Iterator[str]:
        assert self.inner is not None
        yield from (list(TAXI)[action] for action in shortest_plan(self.inner) or [])


class Cliff(TextWrapper):
    def __init__(self, **options: Any) -> None:
        env = gymnasium.make("CliffWalking-v1")
        options = {"won": lambda reward, terminated: terminated, "top_score": -13.0} | options
        super().__init__(env, lambda env, state: f"row {state // 12}, column {state % 12}", WALKS, **options)

    def expert(self) -> Iterator[str]:
        assert self.inner is not None
        yield from (list(WALKS)[action] for action in shortest_plan(self.inner, lambda reward: True) or [])


def hand(env: Any, observation: Any) -> str:
    mine, dealers, ace = observation
    return f"You have {mine}{', with an ace of 11' * int(ace)}; the dealer shows {dealers}."


class Blackjack(TextWrapper):
    def __init__(self, **options: Any) -> None:
        super().__init__(gymnasium.make("Blackjack-v1"), hand, CARDS, max_turns=25, **options)


FOUR = [FROZEN_LAKE, Taxi, Blackjack, Cliff]
NAMES = {FROZEN_LAKE: ["left", "down", "right", "up"], Taxi: list(TAXI), Blackjack: list(CARDS), Cliff: list(WALKS)}


@pytest.mark.parametrize("cls", FOUR)
def test_the_checker_finds_nothing(cls: type[TextWrapper]) -> None:
    llmgym.check_env(cls())


@pytest.mark.parametrize("cls", FOUR)
def test_rewards_and_ends_are_those_of_the_other_environment(cls: type[TextWrapper]) -> None:
    class Recorded(gymnasium.Wrapper):  # type: ignore[type-arg]
        def step(self, action: Any) -> Any:
            steps.append((action, self.env.step(action)))
            return steps[-1][1]

    env = cls(max_turns=500) if cls in (Taxi, Cliff) else cls()
    for seed in range(10):
        env.reset(seed=seed)
        steps: list[Any] = []
        env.inner = Recorded(env.inner)  # type: ignore[arg-type]
        rng, seen, over = np.random.default_rng(seed), [], False
        while not over:
            name = str(rng.choice(NAMES[cls]))
            seen.append((NAMES[cls].index(name), env.step(f"I choose {name}.")))
            over = seen[-1][1][2] or seen[-1][1][3]
        limited = len(env.episode.turns) == env.max_turns
        assert [(action, *step[1:4]) for action, step in steps][:-1] == [(a, *step[1:4]) for a, step in seen][:-1]
        assert [action for action, _ in steps] == [action for action, _ in seen]
        (_, theirs), (_, ours) = steps[-1], seen[-1]
        assert ours[1:3] == theirs[1:3]
        assert ours[3] == (theirs[3] or (limited and not theirs[2]))
        env.inner = env.inner.env  # type: ignore[union-attr]


def test_a_foreign_time_limit_stays_truncated_in_a_rollout(tokenizer: PreTrainedTokenizerFast) -> None:
    codec = ChatCodec(tokenizer)

    def make() -> TextEnv:
        limited = gymnasium.wrappers.TimeLimit(gymnasium.make("CliffWalking-v1"), 3)
        return TextWrapper(limited, lambda env, state: f"state {state}", lambda text: 0)

    (trajectory,) = Collector(
        llmgym.TextVectorEnv([make]), codec, ScriptedEngine(lambda request: [50, codec.end_token])
    ).collect([Task(0, 0)], Sampling(max_tokens=4))
    assert trajectory.ending == "truncated"
    assert [reply.reward for reply in trajectory.replies] == [-1.0] * 3
    assert trajectory.score == -3.0
    assert trajectory.parts == {"success": 0.0, "invalid": 0.0}


@pytest.mark.parametrize("cls", [FROZEN_LAKE, Taxi, Cliff])
def test_a_search_over_the_table_of_transitions_is_an_expert(cls: type[TextWrapper]) -> None:
    env = cls()
    for seed in range(30):
        total, info = told(env, seed, "expert")
        assert info == {"success": 1.0, "invalid": 0.0}
        if cls is Taxi:
            assert 0 < total <= 20
        else:
            assert total == env.top_score


def test_an_environment_that_is_made_for_each_episode_has_a_map_of_its_seed() -> None:
    env = FROZEN_LAKE()
    maps = [env.reset(seed=seed)[0] for seed in range(10)]
    assert len(set(maps)) > 5
    assert maps == [env.reset(seed=seed)[0] for seed in range(10)]


@pytest.mark.parametrize("cls", FOUR)
def test_replies_without_an_action_are_counted_and_bounded_and_cost_no_less_than_actions(cls: Any) -> None:
    env = cls()
    before, _ = env.reset(seed=0)
    total, over, turns = 0.0, False, 0
    while not over:
        said, reward, terminated, truncated, info = env.step("I would rather not.")
        assert said.startswith(f"That names no action. Reply with one of: {', '.join(NAMES[cls])}.")
        assert before.endswith(said.partition("\n")[2])
        assert not terminated
        total, over, turns = total + reward, truncated, turns + 1
    assert turns == env.max_turns
    assert info == {"success": 0.0, "invalid": turns}
    assert total == -turns


def test_a_function_can_read_actions_of_any_kind() -> None:
    def number(reply: str) -> np.ndarray[Any, Any] | None:
        try:
            return np.array([float(reply)], dtype=np.float32).clip(-2, 2)
        except ValueError:
            return None

    env = TextWrapper(
        gymnasium.make("Pendulum-v1"), lambda env, seen: " ".join(f"{one:.2f}" for one in seen), number,
        ask="Give a torque.", max_turns=5,
    )  # fmt: skip
    env.reset(seed=3)
    assert env.step("left")[0].startswith("Give a torque.\n")
    said, reward, *_ = env.step("0.5")
    assert len(said.split()) == 3
    assert reward < 0
    llmgym.check_env(env, seeds=3)


@given(st.text())
def test_the_last_name_counts_as_the_longest_word_of_its_own(text: str) -> None:
    assert last_named(text, TAXI) in (None, *TAXI)
    assert last_named(f"{text} drop OFF.", TAXI) == "drop off"
    assert last_named(f"drop off {text.replace('o', '')}x", {"drop": 1, "drop off": 2}) == "drop off"


BAD: list[tuple[dict[str, Any], str]] = [
    ({"actions": {}}, "actions has to have names"),
    ({"actions": {"up": 0, "UP": 1}}, "differ in more than their case"),
    ({"max_turns": 0}, "max_turns has to be an integer of at least 1"),
    ({"max_turns": True}, "max_turns has to be an integer"),
    ({"invalid_reward": float("nan")}, "invalid_reward has to be a finite number"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_what_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"env": gymnasium.make("CliffWalking-v1"), "describe": hand, "actions": WALKS}
    with pytest.raises(ConfigError, match=message):
        TextWrapper(**(arguments | options))


def test_a_plan_needs_a_table_in_which_each_action_has_one_result() -> None:
    slippery = gymnasium.make("FrozenLake-v1")
    slippery.reset(seed=0)
    with pytest.raises(ConfigError, match="has 3 results, expected one"):
        shortest_plan(slippery)
    with pytest.raises(ConfigError, match="has to have a table of transitions"):
        shortest_plan(gymnasium.make("Blackjack-v1"))
    island = gymnasium.make("FrozenLake-v1", desc=["SH", "HG"], is_slippery=False)
    island.reset(seed=0)
    assert shortest_plan(island) is None

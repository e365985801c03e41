"""`TextVectorEnv` follows Gymnasium's vector API and steps any subset."""

import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv

import llmgym
from llmgym.config.sections import Sampling
from llmgym.errors import ConfigError, EnvironmentContractError

ANSWER = '{"service": "auth", "incident_type": "swapping"}'


def test_make_vec_gives_a_text_vector_env_that_agrees_with_single_ones() -> None:
    envs = gymnasium.make_vec("llmgym/AIOpsTriage-v0", num_envs=3, difficulty=2)
    assert isinstance(envs, llmgym.TextVectorEnv)
    observations, _ = envs.reset(seed=5)
    single = gymnasium.make("llmgym/AIOpsTriage-v0", difficulty=2)
    assert list(observations) == [single.reset(seed=5 + i)[0] for i in range(3)]
    assert observations in envs.observation_space


def test_an_ended_episode_is_reset_in_the_same_step() -> None:
    envs = gymnasium.make_vec("llmgym/AIOpsTriage-v0", num_envs=2)
    envs.reset(seed=0)
    _, rewards, terminated, truncated, _ = envs.step(["[M1]", "[M1] [L1] [T1]"])
    assert not terminated.any()
    assert not rewards.any()
    observations, rewards, terminated, truncated, infos = envs.step([ANSWER, ANSWER])
    assert terminated.all()
    assert not truncated.any()
    assert all(text.startswith("Round 1.") for text in observations)
    assert list(infos["final_obs"]) == ["", ""]
    assert infos["final_info"]["json_ok"].dtype == np.float64
    assert infos["final_info"]["json_ok"].tolist() == [1.0, 1.0]
    assert (rewards > 0.1).all()


def test_gymnasiums_sync_vector_env_carries_the_texts_too() -> None:
    envs = gymnasium.make_vec("llmgym/AIOpsTriage-v0", num_envs=2, vectorization_mode="sync")
    assert isinstance(envs, SyncVectorEnv)
    observations, _ = envs.reset(seed=0)
    single = gymnasium.make("llmgym/AIOpsTriage-v0")
    assert tuple(observations) == tuple(single.reset(seed=i)[0] for i in range(2))


def test_any_subset_can_be_stepped() -> None:
    envs = llmgym.TextVectorEnv([lambda: gymnasium.make("llmgym/AIOpsTriage-v0")] * 3)
    envs.reset(seed=0)
    results = envs.step_some({2: "[M1]", 0: "[L1]"})
    assert sorted(results) == [0, 2]
    results = envs.step_some({0: ANSWER, 1: "[S1]"})
    assert (results[0].terminated, results[1].terminated) == (True, False)


class Broken(gymnasium.Env[str, str]):
    """A plain Gymnasium environment that returns what it is told to."""

    observation_space = action_space = llmgym.UnicodeText()

    def __init__(self, stepped: Any = ("", 1.0, True, False, {}), begun: Any = ("hello", {})) -> None:
        self.stepped, self.begun = stepped, begun

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.begun

    def step(self, action: str) -> Any:
        return self.stepped


@pytest.mark.parametrize(
    ("stepped", "message"),
    [
        ((7, 0.0, True, False, {}), "a string as observation, got int: 7"),
        ((None, 0.0, True, False, {}), "a string as observation, got NoneType: None"),
        (("", 0.0, True, {}), "observation, reward, terminated, truncated and info, got 4 values"),
        (None, "observation, reward, terminated, truncated and info, got NoneType: None"),
        (("", 0.0, True, False, None), "a dict as info, got NoneType: None"),
        (("", 0.0, True, False, [1.0]), r"a dict as info, got list: \[1.0\]"),
        (("", 0.0, "False", False, {}), "True or False as terminated, got str: 'False'"),
        (("", 0.0, False, None, {}), "True or False as truncated, got NoneType: None"),
    ],
    ids=str,
)
def test_a_step_of_another_shape_is_named(stepped: Any, message: str) -> None:
    envs = llmgym.TextVectorEnv([lambda: Broken(stepped)])
    envs.reset(seed=0)
    with pytest.raises(EnvironmentContractError, match=rf"Broken\.step has to return {message}"):
        envs.step_some({0: "x"})


@pytest.mark.parametrize("name", ["observation_space", "action_space"])
def test_an_environment_without_a_space_is_named(name: str) -> None:
    class Bare(Broken):
        pass

    setattr(Bare, name, None)
    with pytest.raises(EnvironmentContractError, match=f"Bare: expected an {name} of texts, got none"):
        llmgym.TextVectorEnv([Bare])


@pytest.mark.parametrize(
    ("begun", "message"),
    [
        (None, "observation and info, got NoneType: None"),
        ("hello", "observation and info, got str: 'hello'"),
        (("hello", None), "a dict as info, got NoneType: None"),
        ((b"hello", {}), "a string as observation, got bytes: b'hello'"),
    ],
    ids=str,
)
def test_a_reset_of_another_shape_is_named(begun: Any, message: str) -> None:
    envs = llmgym.TextVectorEnv([lambda: Broken(begun=begun)])
    with pytest.raises(EnvironmentContractError, match=rf"Broken\.reset has to return {message}"):
        envs.reset(seed=0)


NO_NUMBERS = [
    math.nan,
    -math.inf,
    "1",
    b"1.5",
    None,
    1j,
    [1.0],
    {"a": 1.0},
    np.array([1.0]),
    np.array([1.0, 2.0]),
    np.complex64(1),
    np.str_("1"),
    np.datetime64("2026-01-01"),
    np.timedelta64(1, "s"),
    torch.tensor([1.0]),
    torch.tensor(1 + 1j),
    10**400,
    10**5000,
]


@pytest.mark.parametrize("reward", NO_NUMBERS, ids=lambda reward: type(reward).__name__)
def test_a_reward_that_is_no_finite_number_is_named(reward: Any) -> None:
    envs = llmgym.TextVectorEnv([lambda: Broken(("", reward, True, False, {}))])
    envs.reset(seed=0)
    kind = type(reward).__name__
    with pytest.raises(
        EnvironmentContractError, match=rf"Broken\.step has to return a finite number as reward, got {kind}: "
    ):
        envs.step_some({0: "x"})


@pytest.mark.parametrize(
    "reward",
    [1, True, 1.0, np.float32(1), np.int64(1), np.bool_(True), np.array(1.0), torch.tensor(1), Fraction(1), Decimal(1)],
    ids=lambda reward: type(reward).__name__,
)
def test_a_reward_is_a_number_of_any_kind(reward: Any) -> None:
    envs = llmgym.TextVectorEnv([lambda: Broken(("", reward, True, False, {}))])
    envs.reset(seed=0)
    found = envs.step_some({0: "x"})[0].reward
    assert (found, type(found)) == (1.0, float)


class Endless(llmgym.TextEnv):
    """Goes on forever, unless the agent says stop, and pays for every turn."""

    def begin(self) -> str:
        return "go on"

    def respond(self, action: str) -> str | None:
        return None if action == "stop" else "go on"

    def score(self, episode: llmgym.Episode) -> dict[str, float]:
        return {"turns": 0.25 * len(episode.turns)}


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"max_tokens": "3"}, "max_tokens has to be a whole number from 1 on or None, got '3'"),
        ({"max_tokens": 2.5}, "max_tokens has to be a whole number from 1 on or None, got 2.5"),
        ({"max_tokens": True}, "max_tokens has to be a whole number from 1 on or None, got True"),
        ({"max_episode_tokens": 0}, "max_episode_tokens has to be a whole number from 1 on or None, got 0"),
        ({"stop": None}, "stop has to be strings that are not empty, got None"),
        ({"stop": None, "max_tokens": 3}, "stop has to be strings that are not empty, got None"),
        ({"stop": ""}, "stop has to be strings that are not empty, got ''"),
        ({"stop": [".", ""]}, "stop has to be strings that are not empty, got ['.', '']"),
        ({"stop": 3}, "stop has to be strings that are not empty, got 3"),
    ],
)
def test_a_wrong_limit_of_an_environment_is_named(limits: dict[str, Any], said: str) -> None:
    envs = llmgym.TextVectorEnv([type("Unbounded", (Endless,), limits)])
    with pytest.raises(ConfigError) as raised:
        envs.within_limits(Sampling())
    assert str(raised.value) == f"Unbounded limits its replies wrongly: {said}"


def test_the_stricter_limit_counts_and_every_stop_string() -> None:
    limits = {"stop": ".", "max_tokens": 3, "max_episode_tokens": 9}
    envs = llmgym.TextVectorEnv([type("Bounded", (Endless,), limits)])
    assert envs.within_limits(Sampling(stop=("!",))) == Sampling(stop=("!", "."), max_tokens=3, max_episode_tokens=9)
    assert envs.within_limits(Sampling(max_tokens=2)) == Sampling(stop=(".",), max_tokens=2, max_episode_tokens=9)
    assert llmgym.TextVectorEnv([Endless]).within_limits(Sampling()) == Sampling()


def limited_by_itself() -> gymnasium.Env[str, str]:
    env = Endless()
    env.max_turns = 3
    return env


def limited_by_its_registration() -> gymnasium.Env[str, str]:
    return gymnasium.make("EndlessLimited-test-v0")


def limited_when_made() -> gymnasium.Env[str, str]:
    return gymnasium.make("Endless-test-v0", max_episode_steps=3)


def limited_by_a_wrapper() -> gymnasium.Env[str, str]:
    return gymnasium.wrappers.TimeLimit(Endless(), max_episode_steps=3)


@pytest.fixture
def endless() -> Iterator[None]:
    llmgym.register_env("EndlessLimited-test-v0", max_episode_steps=3)(Endless)
    llmgym.register_env("Endless-test-v0")(Endless)
    yield
    for name in ("EndlessLimited-test-v0", "Endless-test-v0"):
        gymnasium.registry.pop(name)
        llmgym.registry._IDS.remove(name)


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize(
    "make", [limited_by_itself, limited_by_its_registration, limited_when_made, limited_by_a_wrapper]
)
def test_an_episode_is_scored_whoever_limits_its_turns(make: Callable[[], gymnasium.Env[str, str]]) -> None:
    for last in ("x", "stop"):
        envs = llmgym.TextVectorEnv([make])
        envs.reset_one(0, seed=0)
        results = [envs.step_some({0: action})[0] for action in ("x", "x", last)]
        assert [result.terminated or result.truncated for result in results] == [False, False, True]
        assert (results[-1].terminated, results[-1].truncated) == (last == "stop", last != "stop")
        assert results[-1].reward == 0.75
        assert results[-1].info == {"turns": 0.75, "success": 0.0}


@pytest.mark.usefixtures("endless")
def test_gymnasium_alone_scores_an_episode_that_its_registration_limits() -> None:
    env = limited_by_its_registration()
    env.reset(seed=0)
    env.step("x")
    env.step("x")
    assert env.step("x")[1:] == (0.75, False, True, {"turns": 0.75, "success": 0.0})
    llmgym.check_env(limited_by_its_registration(), seeds=3)


class Penalty(gymnasium.Wrapper[str, str, str, str]):
    """Ends an episode in which something bad is said, with a reward and a part of its own."""

    def step(self, action: str) -> Any:
        return ("", -1.0, False, True, {"bad": 1.0}) if action == "bad" else self.env.step(action)


def test_a_wrapper_that_cuts_an_episode_off_has_the_last_word_on_its_reward() -> None:
    envs = llmgym.TextVectorEnv([lambda: Penalty(Endless())])
    envs.reset_one(0, seed=0)
    result = envs.step_some({0: "bad"})[0]
    assert (result.reward, result.truncated) == (-1.0, True)
    assert result.info == {"turns": 0.0, "success": 0.0, "bad": 1.0}


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize(("asked", "turns"), [(2, 2), (5, 5), (None, 3)])
def test_whoever_makes_an_environment_has_the_last_word_on_its_limit(asked: int | None, turns: int) -> None:
    options = {} if asked is None else {"max_episode_steps": asked}
    envs = llmgym.TextVectorEnv([lambda: gymnasium.make("EndlessLimited-test-v0", **options)])
    envs.reset_one(0, seed=0)
    results = [envs.step_some({0: "x"})[0] for _ in range(turns)]
    assert [result.truncated for result in results] == [*[False] * (turns - 1), True]
    assert results[-1].reward == 0.25 * turns


def test_an_environment_that_nobody_registered_has_no_such_limit() -> None:
    env = gymnasium.make(gymnasium.envs.registration.EnvSpec("Unregistered-test-v0", entry_point=Endless))
    env.reset(seed=0)
    assert env.step("x")[2:4] == (False, False)

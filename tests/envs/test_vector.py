"""`TextVectorEnv` follows Gymnasium's vector API and steps any subset."""

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

import llmgym
from llmgym.errors import EnvironmentContractError

ANSWER = '{"service": "auth", "incident_type": "disk_full"}'


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

    def __init__(self, observation: Any, reward: Any) -> None:
        self.returned = (observation, reward, True, False, {})

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        return "hello", {}

    def step(self, action: str) -> Any:
        return self.returned


@pytest.mark.parametrize(
    ("observation", "reward", "message"),
    [
        (7, 0.0, r"Broken\.step has to return a string as observation, got int: 7"),
        ("fine", math.nan, r"Broken\.step has to return a finite number as reward, got nan"),
        ("fine", "1", r"Broken\.step has to return a finite number as reward, got '1'"),
        ("fine", None, r"Broken\.step has to return a finite number as reward, got None"),
    ],
)
def test_what_a_broken_environment_returns_is_named(observation: Any, reward: Any, message: str) -> None:
    envs = llmgym.TextVectorEnv([lambda: Broken(observation, reward)])
    envs.reset(seed=0)
    with pytest.raises(EnvironmentContractError, match=message):
        envs.step_some({0: "x"})

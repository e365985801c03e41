"""Every registered environment keeps Gymnasium's contract and llmgym's own."""

import json
import subprocess
import sys
import warnings

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env

import llmgym
from llmgym.envs.text_env import TextEnv
from llmgym.errors import EnvironmentContractError

SEEDS = 200
ARGUMENTS = {
    "llmgym/qa-v0": {"rows": [{"prompt": f"{n} + {n}?", "answer": str(2 * n)} for n in range(9)], "scorer": "number"}
}
"""What an environment is made with that needs something."""
IDS = [name for name in llmgym.registered_envs() if name.startswith("llmgym/")]  # those of the package
TRIAGE_OPTIONS = [{"difficulty": d, "language": lang} for d in range(4) for lang in ("en", "zh")]


def make(env_id: str, **options: object) -> TextEnv:
    arguments = ARGUMENTS.get(env_id, {}) | options
    env = gymnasium.make(env_id, disable_env_checker=True, **arguments).unwrapped
    assert isinstance(env, TextEnv)
    return env


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasiums_own_checker_has_no_warning(env_id: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gymnasium_check_env(make(env_id, render_mode="ansi"))
        gymnasium.make(env_id, **ARGUMENTS.get(env_id, {})).reset(seed=0)


@pytest.mark.parametrize("env_id", IDS)
def test_it_passes_llmgyms_checker(env_id: str) -> None:
    llmgym.check_env(gymnasium.make(env_id, render_mode="ansi", **ARGUMENTS.get(env_id, {})))


def total_reward(env: TextEnv, seed: int, policy: str) -> float:
    observation, _ = env.reset(seed=seed)
    expert, total, over = env.expert(), 0.0, False
    while not over:
        action = next(expert) if policy == "expert" else observation if policy == "echo" else policy
        observation, reward, terminated, truncated, _ = env.step(action)
        total, over = total + reward, terminated or truncated
    return total


@pytest.mark.parametrize("options", TRIAGE_OPTIONS, ids=str)
def test_the_expert_earns_the_top_score_on_every_seed(options: dict[str, object]) -> None:
    env = make("llmgym/AIOpsTriage-v0", **options)
    assert all(total_reward(env, seed, "expert") == pytest.approx(1.0) for seed in range(SEEDS))


@pytest.mark.parametrize("options", TRIAGE_OPTIONS, ids=str)
@pytest.mark.parametrize(
    "policy",
    ["", "echo", "I see.", '{"service": "gateway", "incident_type": "memory_leak"}', "[M1] [L1] [T1]"],
    ids=["empty", "echo", "constant", "constant answer", "constant citation"],
)
def test_no_lazy_policy_comes_near_the_top_score(policy: str, options: dict[str, object]) -> None:
    env = make("llmgym/AIOpsTriage-v0", **options)
    rewards = [total_reward(env, seed, policy) for seed in range(SEEDS)]
    assert max(rewards) < 0.95
    assert sum(rewards) / SEEDS < 0.5


PLAY = """
import json, sys, gymnasium, llmgym
env = gymnasium.make(sys.argv[1], disable_env_checker=True, **json.loads(sys.argv[2]))
episodes = []
for seed in range(20):
    observation, info = env.reset(seed=seed)
    episodes.append([observation, info])
    for action in ["[M1] payments", '{"service": "payments", "incident_type": "memory_leak"}', "a", "b"]:
        step = env.step(action)
        episodes.append(step)
        if step[2] or step[3]:
            break
print(json.dumps(episodes))
"""


@pytest.mark.parametrize("env_id", IDS)
def test_equal_seeds_and_actions_give_equal_episodes_in_any_process(env_id: str) -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", PLAY, env_id, json.dumps(ARGUMENTS.get(env_id, {}))],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": str(salt), "PATH": "/usr/bin:/bin"},
        ).stdout
        for salt in (1, 2)
    ]
    assert runs[0] == runs[1]
    assert len(json.loads(runs[0])) >= 40


def test_the_id_works_without_importing_llmgym() -> None:
    program = "import gymnasium; print(gymnasium.make('llmgym:llmgym/AIOpsTriage-v0').reset(seed=1)[0][:8])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "Round 1."


def test_a_reward_above_the_top_score_is_found() -> None:
    class Generous(TextEnv):
        """It pays 2 for anything."""

        def begin(self) -> str:
            return "Say anything."

        def score(self, episode: llmgym.Episode) -> float:
            return 2.0

    with pytest.raises(EnvironmentContractError, match=r"Random replies earned 2 on seed 0, expected at most"):
        llmgym.check_env(Generous())
    Generous.top_score = None
    llmgym.check_env(Generous())

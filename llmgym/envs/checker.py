"""`check_env`: whether an environment keeps the promises that training relies on."""

import warnings
from typing import Any

import gymnasium
from gymnasium.utils.env_checker import check_env as gymnasium_check_env

from llmgym.envs.text_env import TextEnv
from llmgym.errors import EnvironmentContractError

Transcript = list[tuple[Any, ...]]


def check_env(env: gymnasium.Env[str, str], *, seeds: int = 20) -> None:
    """Check a text environment: Gymnasium's contract, purity, and that its expert is one.

    Args:
        env: The environment.
        seeds: How many seeds the expert plays.

    Raises:
        EnvironmentContractError: What is wrong, in a sentence.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            gymnasium_check_env(env.unwrapped, skip_render_check=env.render_mode is None)
        except (AssertionError, ValueError, Warning) as error:
            raise EnvironmentContractError(f"Gymnasium's check_env: {error}") from error
    inner = env.unwrapped
    if not isinstance(inner, TextEnv) or type(inner).expert is TextEnv.expert:
        return
    for seed in range(seeds):
        first, second = _play_expert(inner, seed), _play_expert(inner, seed)
        if first != second:
            raise EnvironmentContractError(
                f"Seed {seed} gave two different episodes for the same actions: use self.np_random and nothing else."
            )
        *_, (_, _, terminated, truncated, _) = first
        if not (terminated or truncated):
            raise EnvironmentContractError(f"The expert ran out of replies on seed {seed} before the episode was over.")
        total = sum(step[1] for step in first)
        if inner.top_score is not None and abs(total - inner.top_score) > 1e-6:
            raise EnvironmentContractError(f"The expert earned {total} on seed {seed}, expected {inner.top_score}.")


def _play_expert(env: TextEnv, seed: int) -> Transcript:
    transcript: Transcript = []
    observation, _ = env.reset(seed=seed)
    for action in env.expert():
        transcript.append(env.step(action))
        _, _, terminated, truncated, _ = transcript[-1]
        if terminated and truncated:
            raise EnvironmentContractError(
                f"Seed {seed} ended both terminated and truncated; an episode is one of them."
            )
        if terminated or truncated:
            break
    return [(observation, 0.0, False, False, {}), *transcript]

"""Who has an expert, and how replies that are known beforehand are played."""

from collections.abc import Callable, Iterable
from typing import Any, TypeGuard

import gymnasium

from llmgym.calls import ActionLike, as_action
from llmgym.envs.text_env import TextEnv
from llmgym.errors import ConfigError, EnvironmentContractError
from llmgym.types import Episode


def has_expert(env: object) -> TypeGuard[TextEnv]:
    """Whether an environment without its wrappers tells what an expert would reply."""
    return isinstance(env, TextEnv) and type(env).expert is not TextEnv.expert


def has_mistakes(env: TextEnv) -> bool:
    """Whether an environment tells what a wrong episode is like."""
    return type(env).mistake is not TextEnv.mistake


def expert_env(env: gymnasium.Env[Any, Any]) -> TextEnv:
    """Return an environment without its wrappers, if it has an expert.

    Raises:
        ConfigError: It has none.
    """
    inner: object = env.unwrapped
    if isinstance(inner, TextEnv) and len(inner.seats) > 1:
        raise ConfigError(
            f"{type(inner).__name__} has {len(inner.seats)} seats, and an expert shows how to play one: expected an "
            "environment that plays the others itself, such as with opponent='optimal'."
        )
    if not has_expert(inner):
        raise ConfigError(
            f"{type(inner).__name__} has no expert to learn from: expected a TextEnv with an expert() that yields a "
            "reply per turn."
        )
    return inner


def play(
    env: gymnasium.Env[str, str], seed: int, replies: Callable[[], Iterable[ActionLike]], row: int | None = None
) -> tuple[Episode, float | None] | None:
    """Play one episode of a `TextEnv`, through its wrappers.

    Returns:
        The episode and its score, which may be missing; None if the replies ran out before its end.
    """
    inner: Any = env.unwrapped
    env.reset(seed=seed, options=None if row is None else {"row": row})
    total = 0.0
    for reply in replies():
        _, reward, terminated, truncated, info = env.step(as_action(reply))
        total += float(reward)
        if terminated or truncated:
            return inner.episode, None if "score_missing" in info else total
    return None


def play_expert(env: gymnasium.Env[str, str], seed: int, row: int | None = None) -> tuple[Episode, float | None]:
    """Play the expert; return its episode and the score.

    Raises:
        ConfigError: There is none.
        EnvironmentContractError: It has no more replies, but the episode goes on.
    """
    played = play(env, seed, expert_env(env).expert, row)
    if played is None:
        raise EnvironmentContractError(f"The expert ran out of replies on seed {seed} before the episode was over.")
    return played

"""`demonstrate`: what the expert of an environment does, as conversations."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import gymnasium

from llmgym.envs.text_env import TextEnv
from llmgym.errors import ConfigError, EnvironmentContractError
from llmgym.types import Message


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One episode played by the expert.

    Attributes:
        seed: The seed its environment was reset with.
        prompt: What stands before the expert's first reply.
        completion: The expert's replies with what the environment answered between them; the first and
            the last message are the expert's.
        score: The episode's reward; None if it could not be scored.
    """

    seed: int
    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]
    score: float | None


def demonstrate(env: gymnasium.Env[str, str], seeds: Iterable[int]) -> list[Demonstration]:
    """Play the expert of an environment, one episode per seed.

    Raises:
        ConfigError: The environment has no expert.
        EnvironmentContractError: The expert has no more replies, but the episode goes on.
    """
    inner = expert_env(env)
    return [_play(inner, seed) for seed in seeds]


def expert_env(env: gymnasium.Env[str, str]) -> TextEnv:
    """Return an environment without its wrappers, if it has an expert.

    Raises:
        ConfigError: It has none.
    """
    inner: Any = env.unwrapped
    if not isinstance(inner, TextEnv) or type(inner).expert is TextEnv.expert:
        raise ConfigError(
            f"{type(inner).__name__} has no expert to learn from: expected a TextEnv with an expert() that yields a "
            "reply per turn."
        )
    return inner


def _play(env: TextEnv, seed: int) -> Demonstration:
    env.reset(seed=seed)
    total = 0.0
    for reply in env.expert():
        _, reward, terminated, truncated, info = env.step(reply)
        total += reward
        if terminated or truncated:
            messages = tuple(env.episode.messages)
            first = next(i for i, message in enumerate(messages) if message.role == "assistant")
            score = None if "score_missing" in info else total
            return Demonstration(seed, messages[:first], messages[first:], score)
    raise EnvironmentContractError(f"The expert ran out of replies on seed {seed} before the episode was over.")

"""`demonstrate`: what the expert of an environment does, as conversations."""

from collections.abc import Iterable
from dataclasses import dataclass

import gymnasium

from llmgym.envs.experts import expert_env, play_expert
from llmgym.envs.tools import Schemas
from llmgym.types import Episode, Message


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One episode played by the expert.

    Attributes:
        seed: The seed its environment was reset with.
        prompt: The messages before the expert's first reply.
        completion: The expert's replies with what the environment answered between them; the first and
            the last message are the expert's.
        score: The episode's reward; None if it could not be scored.
        tools: The JSON schemas of the tools that the expert could call.
    """

    seed: int
    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]
    score: float | None
    tools: Schemas = ()


def demonstrate(env: gymnasium.Env[str, str], seeds: Iterable[int]) -> list[Demonstration]:
    """Play the expert of an environment, one episode per seed.

    Raises:
        ConfigError: The environment has no expert.
        EnvironmentContractError: The expert has no more replies, but the episode goes on.
    """
    inner = expert_env(env)
    return [_demonstration(seed, *play_expert(env, seed), inner.toolbox.schemas) for seed in seeds]


def _demonstration(seed: int, episode: Episode, score: float | None, tools: Schemas) -> Demonstration:
    messages = tuple(episode.messages)
    first = next(i for i, message in enumerate(messages) if message.role == "assistant")
    return Demonstration(seed, messages[:first], messages[first:], score, tools)

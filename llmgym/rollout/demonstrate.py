"""`demonstrate`: what the expert of an environment does, as conversations."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import gymnasium

from llmgym.calls import Schemas
from llmgym.envs.experts import expert_env, play_expert
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


def demonstrate(
    env: gymnasium.Env[str, str], seeds: Iterable[int], rows: Iterable[int | None] | None = None
) -> list[Demonstration]:
    """Play the expert of an environment, one episode per seed, and per row of a data set where there are some.

    Raises:
        ConfigError: The environment has no expert.
        EnvironmentContractError: The expert has no more replies, but the episode goes on.
    """
    inner = expert_env(env)
    tasks = zip(seeds, itertools.repeat(None) if rows is None else rows, strict=rows is not None)
    return [_demonstration(seed, *play_expert(env, seed, row), inner.toolbox.schemas) for seed, row in tasks]


def _demonstration(seed: int, episode: Episode, score: float | None, tools: Schemas) -> Demonstration:
    messages = tuple(episode.messages)
    first = next(i for i, message in enumerate(messages) if message.role == "assistant")
    return Demonstration(seed, messages[:first], messages[first:], score, tools)

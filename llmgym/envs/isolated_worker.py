"""What a process does for `llmgym.envs.isolated`: it makes an environment, resets and steps it."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

from llmgym.envs.faults import EpisodeLostError, caught
from llmgym.envs.text_env import TextEnv
from llmgym.envs.vector import StepResult, TextVectorEnv
from llmgym.envs.waiting import settle_in_own_loop
from llmgym.errors import ConfigError
from llmgym.scorers.pointwise import as_number
from llmgym.types import Episode, Message
from llmgym.workers.references import find
from llmgym.workers.values import decode, encode

Json = Any

_UNREADABLE = ConfigError, RecursionError, TypeError, ValueError  # what is raised of what cannot be sent


def answer(message: Json) -> Json:
    """Answer what is asked of the environment of this process.

    Args:
        message: ``{"make": ...}``, the first one, says how it is made: see `llmgym.envs.isolated`. All others are the
            name of a method of `_Stage`, and its arguments.

    Returns:
        ``{"result": what the method returns}``, or ``{"lost": why, "infrastructure": whether that is the fault of what
        it stands on}``; to the first message, what is true of each environment that is made so.
    """
    global _stage
    if isinstance(message, dict):
        make = functools.partial(find(message["make"]), *decode(message["arguments"]), **decode(message["options"]))
        _stage = _Stage(make)
        return encode(_stage.facts())
    method, *arguments = message
    said = caught(lambda: encode(getattr(_stage, method)(*map(decode, arguments))))
    if isinstance(said, EpisodeLostError):
        return {"lost": str(said), "infrastructure": said.infrastructure}
    return {"result": said}


class _Stage:
    """An environment, made when it is first asked for: this process may be one that others are forked from.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._envs: TextVectorEnv
        self._told: Json = None  # of tools

    def facts(self) -> Json:
        """Make an environment for once, and return what is true of each; data that it reads are then read already."""
        envs = TextVectorEnv([self._make])
        env = envs.envs[0].unwrapped
        defaults: dict[str, Any] = {"stop": (), "max_tokens": None, "max_episode_tokens": None, "step_timeout": None}
        facts = {name: getattr(env, name, default) for name, default in defaults.items()}
        facts |= {name: getattr(envs, name) for name in ("seats", "turn_limit", "has_score")}
        facts |= {"tools": envs.tools(0), "class": type(env) if isinstance(env, TextEnv) else None}
        caught(envs.close)
        return facts

    def make(self) -> None:
        """Make the environment; coroutines of it run in one loop from now on."""
        settle_in_own_loop()
        self._envs = TextVectorEnv([self._make])

    def reset(self, seed: int | None, options: Json) -> Json:
        """Return the first observation, an info, and the state."""
        observation, info = self._envs.reset_one(0, seed, options)
        return observation, _numbers(info), self._state(self._envs.heard(0, observation))

    def step(self, action: str) -> Json:
        """Return what a step returns, and the state."""
        result = self._envs.step_one(0, action)
        return _plain(result), self._state(result.messages)

    def episodes(self) -> list[Episode] | None:
        """Return what was said in each seat, and the task; None if it is no `TextEnv`.

        Raises:
            ConfigError: The task is something that no other process can be given.
        """
        env = self._envs.envs[0].unwrapped
        if not isinstance(env, TextEnv):
            return None
        try:
            encode([one.task for one in env.episodes])
        except _UNREADABLE as error:
            raise ConfigError(
                f"{type(env).__name__}: a scorer of a run is given episode.task, which in an isolated environment has "
                f"to be something that another process can be given, such as JSON has: {error}"
            ) from error
        return env.episodes

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the environment that another process can be given."""
        found = {}
        for name, value in vars(self._envs.envs[0].unwrapped).items():
            with contextlib.suppress(*_UNREADABLE):
                encode(value)
                found[name] = value
        return found

    def release(self) -> None:
        """Let the environment give back what its episode holds."""
        self._envs.release_one(0)

    def close(self) -> None:
        """Close the environment."""
        self._envs.close()

    def _state(self, heard: Sequence[Message]) -> Json:
        """Return what is to be known of the episode under way."""
        env, tools = self._envs.envs[0].unwrapped, self._envs.tools(0)
        changed, self._told = tools != self._told, tools
        system = env.episode.system_prompt if isinstance(env, TextEnv) else getattr(env, "system_prompt", None)
        return {"heard": heard, "tools": tools if changed else None, "seat": self._envs.seat(0), "system": system}


_stage: _Stage


def _plain(result: StepResult) -> StepResult:
    """Return a step without what no other process can be given."""
    others = {seat: one._replace(info=_numbers(one.info)) for seat, one in result.others.items()}
    return result._replace(info=_numbers(result.info), others=others)


def _numbers(info: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of an info, which is all that is read of one."""
    found = {str(name): as_number(value) for name, value in info.items()}
    return {name: value for name, value in found.items() if value is not None}

"""What a process does for `llmgym.envs.isolated`: it makes an environment, resets and steps it."""

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from llmgym.envs.faults import EpisodeLostError, caught
from llmgym.envs.text_env import TextEnv
from llmgym.envs.vector import StepResult, TextVectorEnv
from llmgym.errors import ConfigError, EnvironmentContractError
from llmgym.types import Episode, Score
from llmgym.workers.references import find
from llmgym.workers.values import decode, encode

Json = Any

_JUDGES = 1000  # of episodes that are over and may still be scored elsewhere


def answer(message: Json) -> Json:
    """Answer what is asked of the environment of this process.

    Args:
        message: ``{"make": ...}``, the first one, says how it is made: see `llmgym.envs.isolated`. All others are the
            name of a method of `_Stage`, and its arguments.

    Returns:
        ``{"result": what the method returns}``, or ``{"lost": why}``; to the first message, what is true of each
        environment that is made so.
    """
    global _stage
    if isinstance(message, dict):
        if message["imports"] is not None:
            find(message["imports"])
        make = functools.partial(find(message["make"]), *decode(message["arguments"]), **decode(message["options"]))
        _stage = _Stage(make)
        return encode(_stage.facts())
    method, *arguments = message
    said = caught(lambda: encode(getattr(_stage, method)(*map(decode, arguments))))
    return {"lost": str(said)} if isinstance(said, EpisodeLostError) else {"result": said}


class _Stage:
    """An environment, made when it is first reset: this process may be one that others are forked from.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._envs: TextVectorEnv | None = None
        self._number = 0  # of the newest episode
        self._judges: OrderedDict[int, Callable[[Score], bool] | None] = OrderedDict()
        self._told: Json = None  # of tools

    def facts(self) -> Json:
        """Make an environment for once, and return what is true of each; data that it reads are then read already."""
        envs = TextVectorEnv([self._make])
        env = envs.envs[0].unwrapped
        facts = {
            name: getattr(env, name, default)
            for name, default in (("stop", ()), ("max_tokens", None), ("max_episode_tokens", None), ("top_score", None))
        }
        judges = isinstance(env, TextEnv) and type(env).succeeded is not TextEnv.succeeded and not env.has_score
        facts |= {
            "is_text_env": isinstance(env, TextEnv),
            "step_timeout": getattr(env, "step_timeout", None),
            "seats": envs.seats,
            "turn_limit": envs.turn_limit,
            "has_score": envs.has_score,
            "judges": judges,
            "tools": envs.tools(0),
        }
        envs.close()
        return facts

    def reset(self, seed: int | None, options: Json) -> Json:
        """Return the first observation, an info, and the state."""
        if self._envs is None:
            self._envs = TextVectorEnv([self._make])
        self._number += 1
        observation, info = self._envs.reset_one(0, seed, options)
        return observation, _sent(info), self._state(self._envs.heard(0, observation))

    def step(self, action: str) -> Json:
        """Return what a step returns, and the state."""
        assert self._envs is not None, "a reset comes before"
        result = self._envs.step_one(0, action)
        if result.terminated or result.truncated:
            self._judges[self._number] = self._envs.judge_of_success(0)
            while len(self._judges) > _JUDGES:
                self._judges.popitem(last=False)
        return _plain(result), self._state(result.messages, over=result.terminated or result.truncated)

    def succeeded(self, number: int, score: Score) -> bool:
        """Tell whether an episode that is over was a success."""
        judge = self._judges.pop(number, None)
        if judge is None:
            raise ConfigError("the environment has been made anew since, and cannot tell whether it was a success")
        return bool(judge(score))

    def release(self) -> None:
        """Let the environment give back what its episode holds."""
        assert self._envs is not None, "an episode is under way"
        self._envs.release_one(0)

    def close(self) -> None:
        """Close the environment."""
        if self._envs is not None:
            self._envs.close()

    def _state(self, heard: Any, *, over: bool = False) -> Json:
        """Return what is to be known of the episode; what was said in it only once it is over."""
        assert self._envs is not None, "a reset comes before"
        env: Any = self._envs.envs[0].unwrapped
        tools = self._envs.tools(0)
        changed, self._told = tools != self._told, tools
        state = {"heard": heard, "number": self._number, "tools": tools if changed else None, "seat": 0}
        if not isinstance(env, TextEnv):
            episode = Episode(getattr(env, "system_prompt", None))
            return {**state, "episodes": [episode], "scores": [], "top_score": None}
        episodes = env.episodes if over else [Episode(one.system_prompt, seat=one.seat) for one in env.episodes]
        try:
            encode([one.task for one in episodes])
        except ConfigError as error:
            raise EnvironmentContractError(
                f"{type(env).__name__}: the episode.task of an isolated environment has to be something that another "
                f"process can be given, such as JSON has: {error}"
            ) from error
        return {**state, "seat": env.seat, "episodes": episodes, "scores": env.scores, "top_score": env.top_score}


_stage: _Stage


def _plain(result: StepResult) -> StepResult:
    """Return a step without what no other process can be given; of an info, only numbers are read."""
    others = {seat: one._replace(info=_sent(one.info)) for seat, one in result.others.items()}
    return result._replace(info=_sent(result.info), others=others)


def _sent(info: dict[str, Any]) -> dict[str, Any]:
    kept = {}
    for name, value in info.items():
        try:
            encode(value)
            kept[name] = value
        except ConfigError:
            continue
    return kept

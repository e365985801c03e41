"""`TextVectorEnv`: many text environments, of which any subset can be stepped."""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from llmgym.envs.faults import EpisodeLostError, caught
from llmgym.envs.text_env import TextEnv
from llmgym.envs.tools import Schemas
from llmgym.envs.waiting import WaitingRoom, waits
from llmgym.errors import EnvironmentContractError
from llmgym.scorers.pointwise import finite
from llmgym.types import Episode, Message, Score, as_text

Infos = dict[str, Any]

Value = TypeVar("Value")


class StepResult(NamedTuple):
    """What one environment returned from `step`, its observation as messages, and at the end a `TextEnv`'s score."""

    observation: str
    reward: float
    terminated: bool
    truncated: bool
    info: Infos
    score: Score | None = None
    messages: Sequence[Message] = ()


class TextVectorEnv(VectorEnv[tuple[str, ...], Sequence[str], NDArray[Any]]):
    """Text environments side by side, behind Gymnasium's vector API and `step_some`.

    `reset` and `step` follow Gymnasium, with the autoreset mode SAME_STEP: no generation is
    spent on an observation that only says that an episode is over. `reset_one` and
    `step_some` leave resetting to the caller, who can step whichever environments have a
    reply ready.

    Every observation is checked to be a string and every reward to be a finite number.

    Args:
        env_fns: One function per environment that makes it.
    """

    def __init__(self, env_fns: Iterable[Callable[[], gymnasium.Env[str, str]]]) -> None:
        self._env_fns = list(env_fns)
        self.envs = [_made(make) for make in self._env_fns]
        self.num_envs = len(self.envs)
        if not self.envs:
            raise ValueError("TextVectorEnv expects at least one environment, got none.")
        first = self.envs[0]
        self.metadata = {**first.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}
        self.spec = first.spec
        self.render_mode = first.render_mode
        self.single_observation_space = first.observation_space
        self.single_action_space = first.action_space
        self.observation_space = batch_space(first.observation_space, self.num_envs)
        self.action_space = batch_space(first.action_space, self.num_envs)

    def opening(self, index: int, observation: str) -> list[Message]:
        """Return what the agent is told first in environment `index`: the system prompt, if any, and an observation."""
        env = self.envs[index].unwrapped
        system = env.episode.system_prompt if isinstance(env, TextEnv) else getattr(env, "system_prompt", None)
        return [*([Message("system", system)] if system else []), *self.heard(index, observation)]

    def heard(self, index: int, observation: str) -> Sequence[Message]:
        """Return an observation of environment `index` as messages: a user's, unless a `TextEnv` said otherwise."""
        env = self.envs[index].unwrapped
        messages = env.heard if isinstance(env, TextEnv) else ()
        # A wrapper may have changed the text.
        return messages if as_text(messages) == observation and messages else (Message("user", observation),)

    def tools(self, index: int) -> Schemas:
        """Return what the agent is told of the tools of environment `index`."""
        env = self.envs[index].unwrapped
        return env.toolbox.schemas if isinstance(env, TextEnv) else ()

    @property
    def turn_limit(self) -> int | None:
        """Replies of an episode at most; None if the environments do not say."""
        limit = getattr(self.envs[0].unwrapped, "turn_limit", math.inf)
        return None if limit == math.inf else int(limit)

    def episode(self, index: int) -> Episode | None:
        """Return the newest episode of environment `index`; None if it is no `TextEnv`."""
        env = self.envs[index].unwrapped
        return env.episode if isinstance(env, TextEnv) else None

    def reset_one(self, index: int, seed: int | None = None, options: Infos | None = None) -> tuple[str, Infos]:
        """Reset environment `index`."""
        name = f"{self._name(index)}.reset"
        observation, info = _unpacked(self.envs[index].reset(seed=seed, options=options), 2, name)
        return _text(observation, name), _info(info, name)

    def step_some(self, actions: Mapping[int, str]) -> dict[int, StepResult]:
        """Step the environments whose indices are given, each with its action."""
        return {index: self.step_one(index, action) for index, action in actions.items()}

    async def in_turn(self, room: WaitingRoom, method: Callable[..., Value], index: int, *arguments: Any) -> Value:
        """Call `reset_one` or `step_one` of environment `index`: in a thread if it waits, else at once.

        Raises:
            EpisodeLostError: It raised an exception, or took longer than its `step_timeout`.
        """
        env = self.envs[index].unwrapped
        limit = getattr(env, "step_timeout", None)
        if limit is None and not (env.waits if isinstance(env, TextEnv) else waits(env)):
            outcome = caught(method, index, *arguments)
        else:
            try:
                outcome = await asyncio.wait_for(room.call(caught, method, index, *arguments), limit)
            except TimeoutError:
                outcome = EpisodeLostError("env_timeout", f"took longer than its step_timeout of {limit:g} s")
        if isinstance(outcome, EpisodeLostError):
            raise outcome
        return outcome

    def leave_one(self, index: int) -> None:
        """Let environment `index` give back what its episode holds, if it was cut off before its end."""
        env = self.envs[index].unwrapped
        if isinstance(env, TextEnv) and env.under_way:
            env.leave()

    def replace(self, index: int, *, hangs: bool) -> None:
        """Make environment `index` anew after a fault; the old one is closed unless it hangs."""
        if not hangs:
            caught(self.envs[index].close)
        self.envs[index] = _made(self._env_fns[index])

    def step_one(self, index: int, action: str) -> StepResult:
        """Step environment `index`."""
        name = f"{self._name(index)}.step"
        inner = self.envs[index].unwrapped
        turns = len(inner.episode.turns) if isinstance(inner, TextEnv) else 0
        observation, reward, terminated, truncated, info = _unpacked(self.envs[index].step(action), 5, name)
        if truncated and isinstance(inner, TextEnv) and inner.under_way:  # a wrapper cut it off
            earned = inner.episode.turns[-1].reward if len(inner.episode.turns) > turns else 0.0
            score, reported = inner.finish()
            reward = reward + score if reward == earned else reward  # what the wrapper gives goes first
            info = {**reported, **_info(info, name)}
        observation = _text(observation, name)
        return StepResult(
            observation,
            finite(reward, name, what="reward"),
            bool(terminated),
            bool(truncated) and not terminated,  # Gymnasium's TimeLimit says both of an end at the limit
            _info(info, name),
            inner.scored if isinstance(inner, TextEnv) else None,
            self.heard(index, observation),
        )

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Infos | None = None
    ) -> tuple[tuple[str, ...], Infos]:
        """Reset all environments; a single seed gives environment `i` the seed ``seed + i``."""
        if options and "reset_mask" in options:
            raise ValueError("reset_mask has no use here: ended episodes are reset by step, single ones by reset_one.")
        seeds = (
            [None if seed is None else seed + i for i in range(self.num_envs)] if isinstance(seed, int | None) else seed
        )
        observations: list[str] = []
        infos: Infos = {}
        for index, one in zip(range(self.num_envs), seeds, strict=True):
            observation, info = self.reset_one(index, one, options)
            observations.append(observation)
            infos = self._add_info(infos, info, index)
        return tuple(observations), infos

    def step(
        self, actions: Sequence[str]
    ) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Infos]:
        """Step all environments; one whose episode ended is reset, its last step in ``final_obs``, ``final_info``."""
        results = self.step_some(dict(zip(range(self.num_envs), actions, strict=True)))
        observations: list[str] = []
        infos: Infos = {}
        for index, result in results.items():
            observation, info = result.observation, result.info
            if result.terminated or result.truncated:
                observation, info = self.reset_one(index)
                infos = self._add_info(infos, {"final_obs": result.observation, "final_info": result.info}, index)
            observations.append(observation)
            infos = self._add_info(infos, info, index)
        return (
            tuple(observations),
            np.array([result.reward for result in results.values()], dtype=np.float64),
            np.array([result.terminated for result in results.values()], dtype=np.bool_),
            np.array([result.truncated for result in results.values()], dtype=np.bool_),
            infos,
        )

    def render(self) -> tuple[Any, ...]:
        """Render every environment."""
        return tuple(env.render() for env in self.envs)

    def close_extras(self, **kwargs: Any) -> None:
        """Close every environment."""
        for env in self.envs:
            env.close()

    def _name(self, index: int) -> str:
        return type(self.envs[index].unwrapped).__name__


def _made(make: Callable[[], gymnasium.Env[str, str]]) -> gymnasium.Env[str, str]:
    env = make()
    if isinstance(inner := env.unwrapped, TextEnv) and env.spec is not None:
        inner.registered_limit = env.spec.max_episode_steps  # which who made it may have changed
    return env


def _unpacked(returned: object, count: int, name: str) -> tuple[Any, ...]:
    if not isinstance(returned, tuple) or len(returned) != count:
        expected = "observation and info" if count == 2 else "observation, reward, terminated, truncated and info"
        got = (
            f"{len(returned)} values" if isinstance(returned, tuple) else f"{type(returned).__name__}: {returned!r:.80}"
        )
        raise EnvironmentContractError(f"{name} has to return {expected}, got {got}.")
    return returned


def _text(observation: object, name: str) -> str:
    if not isinstance(observation, str):
        raise EnvironmentContractError(
            f"{name} has to return a string as observation, got {type(observation).__name__}: {observation!r:.80}"
        )
    return observation


def _info(info: object, name: str) -> Infos:
    if not isinstance(info, dict):
        raise EnvironmentContractError(f"{name} has to return a dict as info, got {type(info).__name__}: {info!r:.80}")
    return info

"""`TextVectorEnv`: many text environments, of which any subset can be stepped."""

import asyncio
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import gymnasium
import numpy as np
from gymnasium import Space
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from llmgym.calls import Schemas
from llmgym.envs.faults import EpisodeLostError, caught
from llmgym.envs.text_env import TextEnv
from llmgym.envs.waiting import WaitingRoom, waits
from llmgym.errors import ConfigError, EnvironmentContractError
from llmgym.scorers.pointwise import finite
from llmgym.types import Episode, Message, Player, Score, Turn, as_text

if TYPE_CHECKING:
    from llmgym.config.sections import Sampling

Infos = dict[str, Any]

Value = TypeVar("Value")


class StepResult(NamedTuple):
    """What one environment returned from `step`, its observation as messages, and at the end a `TextEnv`'s score.

    At the end of an episode of several seats, `others` has what it came to for each of those that did not reply.
    """

    observation: str
    reward: float
    terminated: bool
    truncated: bool
    info: Infos
    score: Score | None = None
    messages: Sequence[Message] = ()
    others: "Mapping[int, StepResult]" = MappingProxyType({})


class TextVectorEnv(SyncVectorEnv[tuple[str, ...], Sequence[str]]):
    """Text environments side by side: Gymnasium's `SyncVectorEnv`, but faster, with checks and `step_some`.

    `reset` and `step` follow Gymnasium in every autoreset mode. `reset_one` and `step_some` leave resetting to the
    caller, who can step whichever environments have a reply ready.

    Every observation is checked to be a string and every reward to be a finite number.

    Args:
        env_fns: One function per environment that makes it.
        autoreset_mode: What `step` does about an ended episode. SAME_STEP resets at once: no generation is spent on an
            observation that only says that an episode is over. NEXT_STEP resets in the next step, whose action is
            ignored. DISABLED leaves it to ``reset(options={"reset_mask": ...})``.

    Example:
        >>> envs = TextVectorEnv([lambda: gymnasium.make("llmgym/AIOpsTriage-v0")] * 3, AutoresetMode.DISABLED)
        >>> seen, _ = envs.reset(seed=0)
        >>> sorted(envs.step_some({0: "[M1]", 2: "[L1]"}))
        [0, 2]
    """

    def __init__(
        self,
        env_fns: Iterable[Callable[[], gymnasium.Env[str, str]]],
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
    ) -> None:
        makers = [functools.partial(_made, make) for make in env_fns]
        if not makers:
            raise ValueError("TextVectorEnv expects at least one environment, got none.")
        super().__init__(makers, autoreset_mode=autoreset_mode)
        self.spec = self.envs[0].spec
        self._texts = [_text_env(env) for env in self.envs]
        self._seen = [""] * self.num_envs
        self._over = [False] * self.num_envs

    def opening(self, index: int, observation: str) -> list[Message]:
        """Return what the agent is told first in environment `index`: the system prompt, if any, and an observation."""
        inner = self._texts[index]
        env = self.envs[index].unwrapped
        system = getattr(env, "system_prompt", None) if inner is None else inner.episode.system_prompt
        return [*([Message("system", system)] if system else []), *self.heard(index, observation)]

    def heard(self, index: int, observation: str) -> Sequence[Message]:
        """Return an observation of environment `index` as messages: a user's, unless a `TextEnv` said otherwise."""
        inner = self._texts[index]
        messages = () if inner is None else inner.heard
        # A wrapper may have changed the text.
        return messages if as_text(messages) == observation and messages else (Message("user", observation),)

    def tools(self, index: int) -> Schemas:
        """Return what the agent is told of the tools of environment `index`."""
        inner = self._texts[index]
        return () if inner is None else inner.toolbox.schemas

    @property
    def seats(self) -> Sequence[Player]:
        """Who plays each seat of an episode."""
        inner = self._texts[0]
        return TextEnv.seats if inner is None else inner.seats

    def seat(self, index: int) -> int:
        """Return the seat of environment `index` whose turn it is."""
        inner = self._texts[index]
        return 0 if inner is None else inner.seat

    @property
    def turn_limit(self) -> int | None:
        """Replies of an episode at most; None if the environments do not say."""
        limit = getattr(self.envs[0].unwrapped, "turn_limit", math.inf)
        return None if limit == math.inf else int(limit)

    def within_limits(self, sampling: "Sampling") -> "Sampling":
        """Return how replies are sampled here: as is asked, within the environments' own stop strings and tokens.

        Raises:
            ConfigError: They are no strings, or no numbers from 1 on.
        """
        inner = self._texts[0]
        if inner is None:
            return sampling
        limits: dict[str, Any] = {}
        for name in ("max_tokens", "max_episode_tokens"):
            own, asked = getattr(inner, name), getattr(sampling, name)
            if own is not None:
                if type(own) is not int or own < 1:
                    raise _wrong_limit(inner, name, "a whole number from 1 on or None")
                limits[name] = own if asked is None else min(own, asked)
        stop = (inner.stop,) if isinstance(inner.stop, str) else inner.stop
        if not isinstance(stop, Sequence) or not all(isinstance(one, str) and one for one in stop):
            raise _wrong_limit(inner, "stop", "strings that are not empty")
        if stop:
            limits["stop"] = tuple(dict.fromkeys((*sampling.stop, *stop)))
        return sampling.with_options(**limits) if limits else sampling

    def episode(self, index: int, seat: int = 0) -> Episode | None:
        """Return the newest episode of a seat of environment `index`; None if it is no `TextEnv`."""
        inner = self._texts[index]
        return None if inner is None else inner.episodes[seat]

    @property
    def has_score(self) -> bool:
        """Whether the environments score their episodes, or may do so, for all that is known."""
        inner = self._texts[0]
        return inner is None or inner.has_score

    def judge_of_success(self, index: int) -> Callable[[Score], bool] | None:
        """Return what tells a success of environment `index` from a score; None if it says so itself, or declares none.

        It speaks of the episode that is over, also once the environment has begun another one.
        """
        inner = self._texts[index]
        if inner is None or inner.has_score or not inner.declares_success:
            return None
        as_it_is = object.__new__(type(inner))
        as_it_is.__dict__.update(inner.__dict__)
        return as_it_is.succeeded

    def reset_one(self, index: int, seed: int | None = None, options: Infos | None = None) -> tuple[str, Infos]:
        """Reset environment `index`."""
        returned = self.envs[index].reset(seed=seed, options=options)
        if not (isinstance(returned, tuple) and len(returned) == 2):
            raise self._fault(index, "reset", "observation and info", returned)
        observation, info = returned
        if not isinstance(observation, str):
            raise self._fault(index, "reset", "a string as observation", observation)
        if not isinstance(info, dict):
            raise self._fault(index, "reset", "a dict as info", info)
        self._seen[index], self._over[index] = observation, False
        return observation, info

    def step_some(self, actions: Mapping[int, str]) -> dict[int, StepResult]:
        """Step the environments whose indices are given, each with its action."""
        return {index: self.step_one(index, action) for index, action in actions.items()}

    async def in_turn(self, room: WaitingRoom, method: Callable[..., Value], index: int, *arguments: Any) -> Value:
        """Call `reset_one` or `step_one` of environment `index`: in a thread if it waits, else at once.

        Raises:
            EpisodeLostError: It raised an exception, or took longer than its `step_timeout`.
        """
        if self.acts_at_once(index):
            outcome = caught(method, index, *arguments)
        else:
            limit = self._limit(index)
            try:
                outcome = await asyncio.wait_for(room.call(caught, method, index, *arguments), limit)
            except TimeoutError:
                outcome = EpisodeLostError("env_timeout", f"took longer than its step_timeout of {limit:g} s")
        if isinstance(outcome, EpisodeLostError):
            raise outcome
        return outcome

    def acts_at_once(self, index: int) -> bool:
        """Whether environment `index` neither waits for something nor has to be waited for with a limit."""
        env, inner = self.envs[index].unwrapped, self._texts[index]
        return self._limit(index) is None and not (waits(env) if inner is None else inner.waits)

    def _limit(self, index: int) -> float | None:
        limit: float | None = getattr(self.envs[index].unwrapped, "step_timeout", None)
        return limit

    def release_one(self, index: int) -> None:
        """Let environment `index` give back what its episode holds, if it was cut off before its end."""
        inner = self._texts[index]
        if inner is not None and inner.under_way:
            inner.release_episode()

    def replace(self, index: int, *, hangs: bool) -> None:
        """Make environment `index` anew after a fault; the old one is closed unless it hangs."""
        if not hangs:
            caught(self.envs[index].close)
        self.envs[index] = self.env_fns[index]()
        self._texts[index] = _text_env(self.envs[index])

    def step_one(self, index: int, action: str) -> StepResult:
        """Step environment `index`."""
        observation, reward, terminated, truncated, info = self._stepped(index, action)
        inner, messages = self._texts[index], self.heard(index, observation)
        if inner is None:
            return StepResult(observation, reward, terminated, truncated, info, messages=messages)
        others = _others(inner, terminated, truncated) if terminated or truncated else {}
        return StepResult(observation, reward, terminated, truncated, info, inner.scored, messages, others)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Infos | None = None
    ) -> tuple[tuple[str, ...], Infos]:
        """Reset all environments, or those of ``options["reset_mask"]``, and return the newest observation of each.

        Args:
            seed: One seed per environment; a single one gives environment `i` the seed ``seed + i``.
            options: A Boolean array ``reset_mask`` says which environments are reset; the rest is for these.
        """
        mask, options = self._reset_mask(options)
        if seed is None or isinstance(seed, int):
            seed = [None if seed is None else seed + i for i in range(self.num_envs)]
        infos: Infos = {}
        for index, one, chosen in zip(range(self.num_envs), seed, mask, strict=True):
            if chosen:
                infos = self._add_info(infos, self.reset_one(index, one, options)[1], index)
        return tuple(self._seen), infos

    def step(
        self, actions: Sequence[str]
    ) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Infos]:
        """Step all environments; what becomes of an ended episode is up to the autoreset mode.

        With SAME_STEP its last observation and info are in ``final_obs`` and ``final_info``.

        Raises:
            ResetNeeded: An episode has ended, and nobody has reset its environment.
        """
        rewards: list[float] = []
        terminations, truncations = np.zeros((2, self.num_envs), dtype=np.bool_)
        infos: Infos = {}
        for index, action in zip(range(self.num_envs), actions, strict=True):
            if self._over[index]:
                if self.autoreset_mode != AutoresetMode.NEXT_STEP:
                    raise ResetNeeded(f"The episode of environment {index} is over: reset it before the next step.")
                reward, info = 0.0, self.reset_one(index)[1]
            else:
                observation, reward, terminated, truncated, info = self._stepped(index, action)
                if terminated or truncated:
                    terminations[index], truncations[index] = terminated, truncated
                    if self.autoreset_mode == AutoresetMode.SAME_STEP:
                        infos = self._add_info(infos, {"final_obs": observation, "final_info": info}, index)
                        info = self.reset_one(index)[1]
            rewards.append(reward)
            if info:
                infos = self._add_info(infos, info, index)
        return tuple(self._seen), np.array(rewards), terminations, truncations, infos

    def _stepped(self, index: int, action: str) -> tuple[str, float, bool, bool, Infos]:
        """Step environment `index` and check what it returns: all in one place, for it is called a million times."""
        inner = self._texts[index]
        before: Sequence[Turn] = () if inner is None else inner.episode.turns  # of the seat that replies
        turns = len(before)
        returned = self.envs[index].step(action)
        if not (isinstance(returned, tuple) and len(returned) == 5):
            raise self._fault(index, "step", "observation, reward, terminated, truncated and info", returned)
        observation, reward, terminated, truncated, info = returned
        if not isinstance(observation, str):
            raise self._fault(index, "step", "a string as observation", observation)
        if not isinstance(info, dict):
            raise self._fault(index, "step", "a dict as info", info)
        for name, ended in (("terminated", terminated), ("truncated", truncated)):
            if not isinstance(ended, int | np.bool_):
                raise self._fault(index, "step", f"True or False as {name}", ended)
        if truncated and inner is not None and inner.under_way:  # a wrapper cut it off
            earned = before[-1].reward if len(before) > turns else 0.0
            score, reported = inner.finish()
            reward = reward + score if reward == earned else reward  # what the wrapper gives goes first
            info = {**reported, **info}
        if type(reward) is not float or not math.isfinite(reward):
            reward = finite(reward, f"{self._name(index)}.step", what="reward")
        self._seen[index] = observation
        if not terminated and not truncated:
            return observation, reward, False, False, info
        self._over[index] = True
        return observation, reward, bool(terminated), not terminated, info  # Gymnasium's TimeLimit may say both

    def _reset_mask(self, options: Infos | None) -> tuple[NDArray[np.bool_], Infos | None]:
        """Return which environments are to be reset, and the other options."""
        if options is None or "reset_mask" not in options:
            return np.ones(self.num_envs, dtype=np.bool_), options
        mask = options["reset_mask"]
        if not (isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.shape == (self.num_envs,)):
            raise ValueError(f"reset_mask is a Boolean array of shape ({self.num_envs},), got {mask!r:.80}")
        if not mask.any():
            raise ValueError("reset_mask chooses no environment.")
        return mask, {name: option for name, option in options.items() if name != "reset_mask"}

    def _fault(self, index: int, method: str, expected: str, got: object) -> EnvironmentContractError:
        shown = f"{len(got)} values" if isinstance(got, tuple) else f"{type(got).__name__}: {got!r:.80}"
        return EnvironmentContractError(f"{self._name(index)}.{method} has to return {expected}, got {shown}")

    def _name(self, index: int) -> str:
        return type(self.envs[index].unwrapped).__name__


def _wrong_limit(env: TextEnv, name: str, expected: str) -> ConfigError:
    got = getattr(env, name)
    return ConfigError(f"{type(env).__name__} limits its replies wrongly: {name} has to be {expected}, got {got!r:.80}")


def _others(env: TextEnv, terminated: bool, truncated: bool) -> dict[int, StepResult]:
    """Return what the end of an episode came to for each seat that did not reply."""
    found = {}
    for seat, score in enumerate(env.scores):
        if seat != env.seat:
            reward, info = env.earned(seat)
            found[seat] = StepResult("", reward, terminated, truncated, info, score)
    return found


def _made(make: Callable[[], gymnasium.Env[str, str]]) -> gymnasium.Env[str, str]:
    env = make()
    for name in ("observation_space", "action_space"):
        if not isinstance(getattr(env, name, None), Space):
            raise EnvironmentContractError(
                f"{type(getattr(env, 'unwrapped', env)).__name__}: expected an {name} of texts, got none; "
                "gymnasium.spaces.Text is one."
            )
    inner = _text_env(env)
    if inner is not None and env.spec is not None:
        inner.registered_limit = env.spec.max_episode_steps  # which who made it may have changed
    return env


def _text_env(env: gymnasium.Env[str, str]) -> TextEnv | None:
    inner = env.unwrapped
    return inner if isinstance(inner, TextEnv) else None

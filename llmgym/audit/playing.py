"""`Stage`: plays one episode of an environment that may raise exceptions, hang or never end."""

import contextlib
import random
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import gymnasium
import numpy as np

from llmgym.envs.text_env import TextEnv
from llmgym.errors import EnvironmentContractError
from llmgym.scorers.pointwise import finite
from llmgym.types import Episode

Env = gymnasium.Env[str, str]
Speaker = Callable[[int, str], str | None]
"""Replies, given the number of the turn and the newest observation; None if it has nothing more to say."""

Speaking = Callable[[Env], Speaker]
"""Returns who replies, once the environment was reset."""

Failure = Literal["raises", "hangs", "no_score", "speechless"]

MOST_TURNS = 100  # of an episode that does not end by itself; it is then scored as it is


@dataclass(frozen=True, slots=True)
class Played:
    """One episode.

    Attributes:
        seed: Its task.
        replies: What was said.
        transcript: What the environment returned, from `reset` on.
        reward: The sum of its rewards; None if it has no score.
        task: What the environment itself knows of it, `Episode.task`.
        success: Whether the environment counts it as a success.
        failure: What went wrong, if something did: the environment raised an exception or hung, the score is missing,
            or there was nothing more to say before the end.
        error: What is known of that.
    """

    seed: int
    replies: tuple[str, ...]
    transcript: tuple[Any, ...]
    reward: float | None = None
    task: object = None
    success: bool = False
    failure: Failure | None = None
    error: str = ""


class Stage:
    """Where episodes are played.

    Args:
        make: Makes an environment.
        step_timeout: Seconds that a reset or a step may take. Only the main thread of a POSIX system can interrupt
            one; elsewhere there is no limit.
    """

    def __init__(self, make: Callable[[], Env], step_timeout: float) -> None:
        self._make, self._step_timeout = make, step_timeout
        self._kept: Env | None = None
        self._made: list[Env] = []

    def fresh(self) -> Env:
        """Return a new environment."""
        self._made.append(self._make())
        return self._made[-1]

    def close(self) -> None:
        """Close all environments."""
        for env in self._made:
            env.close()

    def play(self, seed: int, speaking: Speaking, *, env: Env | None = None) -> Played:
        """Play an episode.

        Args:
            seed: Its task.
            speaking: Returns who replies; called after the reset.
            env: Where; None for an environment that earlier episodes were played in. One that failed is not used again.
        """
        stepping = Stepping(env or self._kept or self.fresh(), seed, self._step_timeout)
        stepping.begin(speaking)
        while not stepping.over:
            stepping.step()
        played = stepping.played()
        if env is None:
            self._kept = None if played.failure in ("raises", "hangs") else stepping.env
        return played

    def alternate(self, seeds: Sequence[int], speaking: Sequence[Speaking]) -> list[Played]:
        """Play an episode of each seed, a step of each in turn, in environments of their own."""
        all_steps = [Stepping(self.fresh(), seed, self._step_timeout) for seed in seeds]
        for stepping, who in zip(all_steps, speaking, strict=True):
            stepping.begin(who)
        while not all(stepping.over for stepping in all_steps):
            for stepping in all_steps:
                if not stepping.over:
                    stepping.step()
        return [stepping.played() for stepping in all_steps]

    def abandon(self, env: Env, seed: int, speaking: Speaking) -> None:
        """Begin an episode and leave it after one reply."""
        stepping = Stepping(env, seed, self._step_timeout)
        stepping.begin(speaking)
        if not stepping.over:
            stepping.step()


class Stepping:
    """An episode under way.

    Args:
        env: Where it is played.
        seed: Its task.
        step_timeout: Seconds that a reset or a step may take.
    """

    def __init__(self, env: Env, seed: int, step_timeout: float) -> None:
        self.env, self.over = env, False
        self._seed, self._step_timeout = seed, step_timeout
        self._replies: list[str] = []
        self._transcript: list[Any] = []
        self._task: object = None
        self._earned = 0.0
        self._end: dict[str, Any] = {}

    def begin(self, speaking: Speaking) -> None:
        """Reset the environment, and ask who replies."""
        with self._guarded():
            self._observation, _ = self.env.reset(seed=self._seed)
            inner = self.env.unwrapped
            episode = inner.episode if isinstance(inner, TextEnv) else Episode()
            self._task = episode.task
            self._transcript.append((episode.system_prompt, _text(self._observation)))
        if not self.over:
            self._speaker = speaking(self.env)

    def step(self) -> None:
        """Reply once, and take the answer."""
        with self._guarded():
            reply = self._speaker(len(self._replies), self._observation)
            if reply is None:
                self._stop("speechless", "it ran out of replies before the episode was over")
                return
            self._replies.append(reply)
            self._observation, reward, terminated, truncated, info = self.env.step(reply)
            self._transcript.append((_text(self._observation), reward, terminated, truncated, info))
            self._earned += finite(reward, f"{type(self.env.unwrapped).__name__}.step", what="reward")
            if not (terminated or truncated) and len(self._replies) >= MOST_TURNS:
                inner = self.env.unwrapped
                score, info = inner.finish() if isinstance(inner, TextEnv) else (0.0, info)
                self._earned += score
                terminated = True
            if terminated or truncated:
                self.over, self._end = True, {"success": info.get("success") == 1.0}
                if "score_missing" in info:
                    scored = getattr(self.env.unwrapped, "scored", None)
                    self._stop("no_score", getattr(scored, "error", None) or "it does not say why")

    def played(self) -> Played:
        """Return the episode, once it is over."""
        reward = None if "failure" in self._end else self._earned
        return Played(self._seed, tuple(self._replies), tuple(self._transcript), reward, self._task, **self._end)

    def _stop(self, failure: Failure, error: str) -> None:
        self.over, self._end = True, {"failure": failure, "error": error}

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        limit = _TimeLimit(self._step_timeout)
        try:
            with limit:
                yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  # whatever an environment raises is what is looked for
            if limit.exceeded:
                self._stop("hangs", f"a step takes longer than {self._step_timeout:g} s")
            else:
                self._stop("raises", _said(error))


class _TimeLimit(contextlib.AbstractContextManager[None]):
    """Interrupts what takes too long, where that is possible."""

    def __init__(self, seconds: float) -> None:
        self.exceeded = False
        main = threading.current_thread() is threading.main_thread()
        self._seconds = seconds if main and hasattr(signal, "setitimer") else None

    def __enter__(self) -> None:
        if self._seconds is not None:
            self._before = signal.signal(signal.SIGALRM, self._interrupt)
            signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def __exit__(self, *error: object) -> None:
        if self._seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, self._before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.exceeded = True
        raise _OutOfTimeError


class _OutOfTimeError(BaseException):
    """Raised inside a step; no `except Exception` of an environment stops it."""


@contextlib.contextmanager
def global_seeds(seed: int) -> Iterator[None]:
    """Seed the generators that the whole process shares, and leave them as they were."""
    states = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _text(observation: object) -> str:
    if not isinstance(observation, str):
        raise EnvironmentContractError(f"An observation is a string, got {type(observation).__name__}.")
    return observation


def _said(error: BaseException) -> str:
    """Return an exception in a few words, with the line that raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error!s:.200}".rstrip(": ") + f" ({Path(frame.filename).name}:{frame.lineno})"

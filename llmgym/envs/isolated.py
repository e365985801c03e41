"""Environments in processes of their own, which can be killed: one that hangs or crashes costs one episode."""

import functools
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium

from llmgym.calls import Schemas
from llmgym.envs.faults import EpisodeLostError
from llmgym.envs.text_env import TextEnv
from llmgym.envs.tools import Toolbox
from llmgym.envs.vector import StepResult, TextVectorEnv
from llmgym.errors import ConfigError, said_by
from llmgym.types import Episode, Score
from llmgym.workers import frames
from llmgym.workers.references import reference
from llmgym.workers.values import decode, encode
from llmgym.workers.worker import PATIENCE, Forker, Worker, WorkerError

_HANDLER = "llmgym.envs.isolated_worker:answer"
_A_WEEK = 7 * 86_400.0  # in seconds, the longest that a socket is asked to wait
_FAREWELL = 5.0  # seconds that environments may take to close, all of them together

Json = Any


class IsolatedVectorEnv(TextVectorEnv):
    """Text environments side by side, each in a process of its own.

    An episode whose environment takes too long, ends its process or takes more memory than it may is lost, and no other
    one: the process is replaced, and llmgym's rollouts go on. All else is as in a `TextVectorEnv`.

    A process is forked when its environment is first reset, from one that has imported what it needs.

    Args:
        make: Makes an environment: a function or class of a module or a file, and its arguments, which may be what
            `llmgym.workers.values` can send.
        num_envs: How many.
        timeout: Seconds that a reset or a step may take where an environment has no `step_timeout` of its own.
        log: File to append what environments print to; None for nowhere.

    Raises:
        ConfigError: Another process cannot make the environment.
    """

    def __init__(
        self,
        make: "functools.partial[gymnasium.Env[str, str]]",
        num_envs: int,
        *,
        timeout: float,
        log: Path | None = None,
    ) -> None:
        try:
            made = {"make": reference(make.func), "arguments": encode(make.args), "options": encode(make.keywords)}
        except ConfigError as error:
            raise ConfigError(f"isolate_env: the environment cannot be made in another process: {error}") from error
        self._forker = Forker(_HANDLER, made, log=log)
        facts = decode(self._forker.answer)
        super().__init__([lambda: _IsolatedEnv(self._forker, facts, timeout)] * num_envs)

    def episode(self, index: int, seat: int = 0) -> Episode | None:
        """Return the newest episode of a seat of environment `index`; None if it is no `TextEnv`.

        Raises:
            EpisodeLostError: Its process does not give it.
        """
        episodes = self._isolated(index).ended_episodes()
        return None if episodes is None else episodes[seat]

    def judge_of_success(self, index: int) -> Callable[[Score], bool] | None:
        """Return what tells a success of environment `index` from a score; see `TextVectorEnv`.

        It runs in this process, in what can be sent of the environment.

        Raises:
            EpisodeLostError: Its process does not give that.
        """
        return None if self.has_score else self._isolated(index).judge()

    def close_extras(self, **kwargs: Any) -> None:
        """End all processes; environments that take long to close are not waited for."""
        until = time.monotonic() + _FAREWELL
        envs = [self._isolated(index) for index in range(self.num_envs)]
        for env in envs:
            env.take_leave()
        for env in envs:
            env.close(max(0.0, until - time.monotonic()))
        self._forker.close()

    def _isolated(self, index: int) -> "_IsolatedEnv":
        env = self.envs[index]
        assert isinstance(env, _IsolatedEnv), "all of them are"
        return env


class _IsolatedEnv(TextEnv):
    """An environment in another process, as it is seen from here.

    Args:
        forker: Makes its process.
        facts: What is true of each environment, whatever its episode: see `llmgym.envs.isolated_worker`.
        timeout: Seconds that an answer may take, unless the facts say otherwise.
    """

    blocking = True

    def __init__(self, forker: Forker, facts: Mapping[str, Any], timeout: float) -> None:
        super().__init__()
        self._forker, self._one_at_a_time = forker, threading.Lock()
        self._worker: Worker | None = None
        self._leaving = False
        self.seats, self.stop, self.max_turns = facts["seats"], facts["stop"], facts["turn_limit"]
        self.max_tokens, self.max_episode_tokens = facts["max_tokens"], facts["max_episode_tokens"]
        self._class: type[TextEnv] | None = facts["class"]
        self._has_score: bool = facts["has_score"]
        self._limit: float = timeout if facts["step_timeout"] is None else min(facts["step_timeout"], _A_WEEK)
        self._tools_elsewhere = _ToolsElsewhere(self, facts["tools"])
        self._others: Mapping[int, StepResult] = {}
        self._ended: list[Episode] | None = None  # of the newest episode, once they were asked for

    @property
    def has_score(self) -> bool:
        """Whether it scores its episodes."""
        return self._has_score

    @property
    def toolbox(self) -> Toolbox:
        """The tools, which are called elsewhere."""
        return self._tools_elsewhere

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start a new episode and return its first observation."""
        gymnasium.Env.reset(self, seed=seed)
        self.under_way, self.scores = False, []
        observation, info, state = self._asked("reset", seed, options)
        self.under_way = True
        self._take(state)
        return observation, info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Take the agent's reply."""
        if not self.under_way:
            raise gymnasium.error.ResetNeeded("Call reset() before step(): there is no episode under way.")
        result, state = self._asked("step", action)
        self._take(state)
        if result.terminated or result.truncated:
            self.under_way, self._others = False, result.others
            if result.score is not None:
                ends = {**result.others, self.seat: result}
                self.scores = [ends[seat].score for seat in range(len(self.seats))]
        return result.observation, result.reward, result.terminated, result.truncated, result.info

    def earned(self, seat: int) -> tuple[float, dict[str, Any]]:
        """Return the score of a seat that did not reply last, and the info of its end."""
        return self._others[seat].reward, self._others[seat].info

    def ended_episodes(self) -> list[Episode] | None:
        """Return what was said in each seat, once the episode is over; None if it is no `TextEnv`."""
        if self._class is not None and self._ended is None:
            self._ended = self._asked("episodes")
        return self._ended

    def judge(self) -> Callable[[Score], bool] | None:
        """Return what tells a success from a score, for the episode that is over; None if it declares none."""
        assert self._class is not None, "others have a score of their own"
        as_it_is = object.__new__(self._class)
        as_it_is.__dict__.update(self._asked("attributes"))
        return as_it_is.succeeded if as_it_is.declares_success else None

    def release_episode(self) -> None:
        """Give back what an episode holds."""
        super().release_episode()
        if self._worker is not None:
            self._asked("release")

    def take_leave(self) -> None:
        """Have the environment closed, without waiting for it; nobody may ask it for anything afterwards."""
        if self._worker is not None and self._one_at_a_time.acquire(blocking=False):  # else it hangs
            try:
                self._worker.send([frames.packed(["close"])], _FAREWELL)
                self._leaving = True
            except WorkerError:
                self._worker = None

    def close(self, limit: float = _FAREWELL) -> None:
        """Close the environment, and end its process.

        Args:
            limit: Seconds that it may take.
        """
        if not self._leaving:
            self.take_leave()
        worker, self._worker = self._worker, None
        try:
            if worker is not None and self._leaving:
                worker.receive(limit)
        except WorkerError:
            pass
        finally:
            if worker is not None:
                worker.end()

    def _take(self, state: Mapping[str, Any]) -> None:
        """Take what is to be known of an episode."""
        self.heard, self.seat, self._ended = state["heard"], state["seat"], None
        self.episode = Episode(state["system"], seat=self.seat)
        if state["tools"] is not None:
            self._tools_elsewhere = _ToolsElsewhere(self, state["tools"])

    def _asked(self, method: str, *arguments: Any) -> Any:
        """Return what the process answers.

        Raises:
            EpisodeLostError: It says that the environment failed, or gives no answer.
        """
        with self._one_at_a_time:
            try:
                if self._worker is None:
                    self._worker = self._forker.fork()
                    _answer(self._worker, ["make"], PATIENCE)
                answer = _answer(self._worker, [method, *map(encode, arguments)], self._limit)
            except WorkerError as error:
                self._worker = None
                raise EpisodeLostError("env_timeout" if error.timed_out else "env_error", str(error)) from error
        try:
            return decode(answer)
        except Exception as error:
            raise EpisodeLostError("env_error", f"what it holds cannot be read here: {said_by(error)}") from error


def _answer(worker: Worker, message: Json, limit: float) -> Json:
    """Return the answer to a message.

    Raises:
        WorkerError: There is none.
        EpisodeLostError: It is that the environment failed.
    """
    worker.send([frames.packed(message)], limit)
    answer = worker.receive(limit)
    if "lost" in answer:
        raise EpisodeLostError("env_error", answer["lost"], infrastructure=answer["infrastructure"])
    return answer["result"]


class _ToolsElsewhere(Toolbox):
    """What an agent is told of tools that another process calls."""

    def __init__(self, owner: object, schemas: Schemas) -> None:
        super().__init__((), owner, None)
        self._schemas = schemas

    def __bool__(self) -> bool:
        return bool(self._schemas)

    @property
    def schemas(self) -> Schemas:
        return self._schemas

"""Environments in processes of their own, which can be killed: one that hangs or crashes costs one episode."""

import functools
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium

from llmgym.calls import Schemas
from llmgym.envs.faults import EpisodeLostError
from llmgym.envs.text_env import TextEnv
from llmgym.envs.tools import Toolbox
from llmgym.envs.vector import StepResult, TextVectorEnv
from llmgym.errors import ConfigError
from llmgym.types import Episode, Score
from llmgym.workers import frames
from llmgym.workers.references import reference
from llmgym.workers.values import decode, encode
from llmgym.workers.worker import Forker, Worker, WorkerError

_HANDLER = "llmgym.envs.isolated_worker:answer"
_FAREWELL = 5.0  # seconds that an environment may take to close

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
        imports: A function or class whose module has to be imported first, such as the environment's, if `make` finds
            it by a name under which that module registers it.
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
        imports: Callable[..., Any] | None = None,
        timeout: float,
        log: Path | None = None,
    ) -> None:
        try:
            imported = None if imports is None else reference(imports)
            made = {"make": reference(make.func), "arguments": encode(make.args), "options": encode(make.keywords)}
        except ConfigError as error:
            raise ConfigError(f"isolate_env: the environment cannot be made in another process: {error}") from error
        self._forker = Forker(_HANDLER, {"imports": imported, **made}, log=log)
        facts = decode(self._forker.answer)
        super().__init__([lambda: _IsolatedEnv(self._forker, facts, timeout)] * num_envs)

    def episode(self, index: int, seat: int = 0) -> Episode | None:
        """Return the newest episode of a seat of environment `index`; None if it is no `TextEnv`."""
        inner: Any = self.envs[index]
        return super().episode(index, seat) if inner.is_text_env else None

    def close_extras(self, **kwargs: Any) -> None:
        """End all processes."""
        super().close_extras(**kwargs)
        self._forker.close()


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
        self.is_text_env: bool = facts["is_text_env"]
        self.seats, self.stop, self.top_score = facts["seats"], facts["stop"], facts["top_score"]
        self.max_tokens, self.max_episode_tokens = facts["max_tokens"], facts["max_episode_tokens"]
        self.max_turns = facts["turn_limit"]
        self._has_score: bool = facts["has_score"]
        self._judges: bool = facts["judges"]
        self._limit = timeout if facts["step_timeout"] is None else facts["step_timeout"]
        self._tools_elsewhere = _ToolsElsewhere(self, facts["tools"])
        self._others: Mapping[int, StepResult] = {}
        self._number = 0  # of the newest episode

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
        self.under_way = not (result.terminated or result.truncated)
        self._others = result.others
        self._take(state)
        return result.observation, result.reward, result.terminated, result.truncated, result.info

    def earned(self, seat: int) -> tuple[float, dict[str, Any]]:
        """Return the score of a seat that did not reply last, and the info of its end."""
        return self._others[seat].reward, self._others[seat].info

    def succeeded(self, score: Score) -> bool:
        """Tell whether a scored episode counts as a success."""
        if not self._judges:
            return super().succeeded(score)
        return bool(self._asked("succeeded", self._number, score))

    def release_episode(self) -> None:
        """Give back what an episode holds."""
        super().release_episode()
        if self._worker is not None:
            self._asked("release")

    def close(self) -> None:
        """Close the environment, and end its process."""
        free = self._one_at_a_time.acquire(blocking=False)  # else it hangs, or somebody gave it up
        worker, self._worker = self._worker, None
        try:
            if worker is not None:
                if free:
                    _answer(worker, ["close"], _FAREWELL)
                worker.end()
        except WorkerError:
            pass
        finally:
            if free:
                self._one_at_a_time.release()

    def _take(self, state: Mapping[str, Any]) -> None:
        """Take what is to be known of an episode."""
        for name in ("heard", "seat", "episodes", "scores", "top_score"):
            setattr(self, name, state[name])
        self.episode, self._number = self.episodes[self.seat], state["number"]
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
                answer = _answer(self._worker, [method, *map(encode, arguments)], self._limit)
            except WorkerError as error:
                self._worker = None
                raise EpisodeLostError("env_timeout" if error.timed_out else "env_error", str(error)) from error
        if "lost" in answer:
            raise EpisodeLostError("env_error", answer["lost"])
        return decode(answer["result"])


def _answer(worker: Worker, message: Json, limit: float) -> Json:
    worker.send([frames.packed(message)], limit)
    return worker.receive(limit)


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

"""One environment for each client of a server: OpenEnv's protocol, one JSON text in, one out.

This file knows no socket; `llmgym.envs.server` has them. A session answers these messages:

| message | answer |
|---|---|
| ``{"type": "reset", "data": {"seed": 3}}`` | the first observation |
| ``{"type": "step", "data": {"message": "..."}}`` | the next observation, with ``reward`` and ``done`` |
| ``{"type": "state"}`` | the id of the episode, and how many steps it had |
| ``{"type": "close"}`` | none: the session is over |
"""

import contextlib
import logging
import threading
import traceback
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal

import gymnasium
import pydantic

from llmgym.calls import Schemas
from llmgym.envs.text_env import TextEnv
from llmgym.envs.waiting import waits
from llmgym.envs.wire import Metadata, wire_score
from llmgym.types import Message, well_formed
from llmgym.visible import visible

Json = dict[str, Any]
MakeEnv = Callable[[], gymnasium.Env[str, str]]

_LOG = logging.getLogger(__name__)
_ONE_AT_A_TIME = threading.Lock()  # for environments that do not wait: they may share state, as those of one rollout do


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class ResetData(pydantic.BaseModel):
    """What a reset takes; anything else is an option of the environment's `reset`.

    Attributes:
        seed: Of the task; without one the environment goes on drawing tasks.
        episode_id: A name of the client's for the episode.
    """

    model_config = pydantic.ConfigDict(extra="allow")

    seed: Annotated[int, pydantic.Field(ge=0)] | None = None
    episode_id: Annotated[str, pydantic.Field(max_length=255)] | None = None


class ActionData(_Strict):
    """An action.

    Attributes:
        message: What the agent replies. It calls tools in plain text, see `llmgym.calls`.
        metadata: Anything; OpenEnv's clients may send it, and it is not read.
    """

    message: str
    metadata: Json = {}  # pydantic copies it


class Observed(_Strict):
    """An observation.

    Attributes:
        content: What the environment says.
        metadata: The same with roles, and everything else that there is to know.
    """

    content: str
    metadata: Metadata


class State(_Strict):
    """What is known of an episode from outside."""

    episode_id: str | None = None
    step_count: int = 0


class _Reset(_Strict):
    type: Literal["reset"]
    data: ResetData = ResetData()


class _Step(_Strict):
    type: Literal["step"]
    data: ActionData


class _State(_Strict):
    type: Literal["state"]


class _Close(_Strict):
    type: Literal["close"]


_Request = _Reset | _Step | _State | _Close
_KNOWN: dict[str, type[_Request]] = {"reset": _Reset, "step": _Step, "state": _State, "close": _Close}

SCHEMAS = {
    "action": ActionData.model_json_schema(),
    "observation": Observed.model_json_schema(),
    "state": State.model_json_schema(),
}
"""What ``/schema`` says."""


def error(code: str, message: str, **more: Any) -> Json:
    """Return an error as the protocol has it."""
    return {"type": "error", "data": {"message": message, "code": code, **more}}


class Session:
    """An environment, as one client sees it. It is made with the first reset.

    Args:
        make: Makes the environment.

    Example:
        >>> session = Session(lambda: gymnasium.make("llmgym/AIOpsTriage-v0"))
        >>> session.answer('{"type": "step", "data": {"message": "Hello?"}}')["data"]["message"]
        'expected a reset: no episode is under way'
        >>> session.answer('{"type": "reset", "data": {"seed": 3}}')["data"]["done"]
        False
        >>> session.close()
    """

    def __init__(self, make: MakeEnv) -> None:
        self._make = make
        self._env: gymnasium.Env[str, str] | None = None
        self._state = State()
        self._tools: Schemas | None = None  # as the client knows them
        self._under_way = False

    def answer(self, text: str | bytes) -> Json | None:
        """Return the answer to a message; None if the client closes the session.

        No message raises an exception: what is wrong with one is its answer. If the environment raises one, the client
        is told no more than what it says, and the next reset makes a new environment.
        """
        request = _read(text)
        if isinstance(request, dict):
            return request
        if isinstance(request, _Close):
            return None
        if isinstance(request, _State):
            return {"type": "state", "data": self._state.model_dump()}
        if isinstance(request, _Step) and not self._under_way:
            return error("EXECUTION_ERROR", "expected a reset: no episode is under way")
        try:
            data = self._reset(request.data) if isinstance(request, _Reset) else self._step(request.data.message)
        except Exception as failure:  # noqa: BLE001  # whatever an environment raises is its client's to hear of
            _LOG.error("%s of an environment failed: %s", request.type, visible(traceback.format_exc()))
            self.close()
            return error("EXECUTION_ERROR", well_formed(f"{type(failure).__name__}: {failure}"))
        return {"type": "observation", "data": data}

    def close(self) -> None:
        """Close the environment, if there is one."""
        self._under_way = False
        env, self._env = self._env, None
        if env is not None:
            with contextlib.suppress(Exception):  # it is not used any more
                env.close()

    def _reset(self, data: ResetData) -> Json:
        if self._env is None:
            with _ONE_AT_A_TIME:
                self._env = self._make()
        with _turn(self._env):
            observation, _ = self._env.reset(seed=data.seed, options=data.model_extra or None)
        self._tools = None
        self._state = State(episode_id=data.episode_id or uuid.uuid4().hex)
        self._under_way = True
        inner: Any = self._env.unwrapped
        system = inner.episode.system_prompt if isinstance(inner, TextEnv) else getattr(inner, "system_prompt", None)
        return self._observed(observation, {"system_prompt": system}, None, over=False)

    def _step(self, message: str) -> Json:
        assert self._env is not None, "an episode under way has an environment"
        with _turn(self._env):
            observation, reward, terminated, truncated, info = self._env.step(message)
        self._state.step_count += 1
        over = bool(terminated or truncated)
        self._under_way = not over
        told: Json = {"truncated": bool(truncated) and not terminated}
        inner = self._env.unwrapped
        if isinstance(inner, TextEnv):
            turn = inner.episode.turns[-1]
            told |= {"reward": turn.reward, "parts": turn.parts}
            told |= {"score": wire_score(inner.scored), "success": info.get("success")} if over else {}
        else:
            told |= {"reward": reward, "parts": {key: one for key, one in info.items() if isinstance(one, float)}}
        return self._observed(observation, told, float(reward), over=over)

    def _observed(self, content: str, told: Json, reward: float | None, *, over: bool) -> Json:
        assert self._env is not None, "what is observed was made"
        inner = self._env.unwrapped
        messages = inner.heard if isinstance(inner, TextEnv) else [Message("user", content)]
        tools = inner.toolbox.schemas if isinstance(inner, TextEnv) else ()
        if tools != self._tools:
            self._tools, told["tools"] = tools, [dict(tool) for tool in tools]
        metadata = Metadata.saying(messages, **told)
        observed = Observed(content=content, metadata=metadata)
        return {"observation": observed.model_dump(exclude_none=True), "reward": reward, "done": over}


def _read(text: str | bytes) -> _Request | Json:
    """Return the request that a text is, or the error that it is answered with."""
    try:
        message = pydantic.TypeAdapter(Json).validate_json(text)
    except pydantic.ValidationError:
        return error("INVALID_JSON", "expected a JSON object")
    kind = message.get("type", "")
    if not isinstance(kind, str) or kind not in _KNOWN:
        return error("UNKNOWN_TYPE", f"expected one of the types {', '.join(_KNOWN)}, got {kind!r:.80}")
    try:
        return _KNOWN[kind].model_validate(message)
    except pydantic.ValidationError as invalid:
        errors = invalid.errors(include_url=False, include_context=False, include_input=False)
        return error("VALIDATION_ERROR", "Invalid message", errors=errors)


def _turn(env: gymnasium.Env[str, str]) -> contextlib.AbstractContextManager[Any]:
    """Return what an environment is stepped in: alone, unless it waits for something."""
    inner = env.unwrapped
    waiting = inner.waits if isinstance(inner, TextEnv) else waits(inner)
    return contextlib.nullcontext() if waiting else _ONE_AT_A_TIME

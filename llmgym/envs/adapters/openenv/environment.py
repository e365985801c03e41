"""Environments on OpenEnv servers, by their WebSocket: a socket for each, and no package but `websockets`.

A reply is the one text that an action needs; where an action needs more, it is a JSON object. OpenEnv has no system
prompts, tools or roles. What a server of llmgym (``llmgym serve-env``) says of them is taken from its metadata.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pydantic

from llmgym.calls import CLOSING, OPENING, Action, BadCall, Schemas, calling, read_calls, read_json
from llmgym.envs.adapters.openenv.socket import RefusedError, Socket
from llmgym.envs.text_env import TextEnv
from llmgym.envs.tools import Toolbox
from llmgym.envs.wire import Metadata
from llmgym.errors import ConfigError, EnvironmentContractError, did_you_mean
from llmgym.types import Episode, Message, Outcome, Said, Score, well_formed

Json = dict[str, Any]

_TEXTS = ("prompt", "text", "message", "content")  # fields of an observation that are shown to the agent


class OpenEnv(TextEnv):
    """Play an environment that an OpenEnv server holds.

    Args:
        task: The server's address: ``ws://host:port/ws``, or as its page has it, ``http://host:port``.
        reset: What the server is told with every reset besides the seed, such as the name of a data set.
        action_field: The field of an action that a reply is; by default the only one that the server's schema requires,
            if it is a text.
        observation_field: The field of an observation that the agent is shown; by default ``prompt``, ``text``,
            ``message`` or ``content``, or all of it as JSON.
        system_prompt: What the agent is told before the first observation; by default what a server of llmgym says, or
            how a reply becomes an action of several fields.
        timeout: Seconds to wait for an answer of the server.
        room_timeout: Seconds to wait for room on a server that is full. Environments of one process share their
            sockets, so a rollout may have more episodes than a server has room for.
        options: As for every `TextEnv`.

    A task's seed is handed over. Not every server heeds it; `llmgym check` shows whether this one does.

    Raises:
        ConfigError: This is no address.
        EnvironmentFailedError: While it is played: there is no server, it has no room, or it failed. In a rollout, that
            costs the episode.
    """

    top_score = None
    blocking = True

    def __init__(
        self,
        task: str,
        *,
        reset: Mapping[str, Any] | None = None,
        action_field: str | None = None,
        observation_field: str | None = None,
        system_prompt: str | None = None,
        timeout: float = 60.0,
        room_timeout: float = 600.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._socket = Socket(task, timeout, room_timeout)
        self._with_reset = dict(reset or {})
        self._action_field, self._observation_field = action_field, observation_field
        self.system_prompt = system_prompt
        self._form: _Form | None = None
        self._servers_tools = _ServersTools(self, ())
        self._seed: int | None = None

    def reset(self, *, seed: int | None = None, options: Json | None = None) -> tuple[str, Json]:
        """Start a new episode and return its first observation; `options` are told to the server."""
        self._seed = seed
        return super().reset(seed=seed, options=options)

    def begin(self) -> Said:
        """Ask the server for a new episode."""
        if self._form is None:
            self._form = _Form(self._action_field) if self._action_field else _form_of(self._socket.schema())
        seed = int(self.np_random.integers(2**31)) if self._seed is None else self._seed
        self._seed, self.max_turns, self._end = None, None, Metadata(messages=[])
        data = self._socket.reset({**self._with_reset, **self.options, "seed": seed})
        told = _told(data)
        self._servers_tools = _ServersTools(self, told.tools or () if told is not None else ())
        system = told.system_prompt if told is not None else self._form.explanation
        prompt = self.system_prompt or system
        return [*([Message("system", prompt)] if prompt else []), *self._said(data, told)]

    def respond(self, action: str) -> Outcome:
        """Send the agent's reply to the server."""
        assert self._form is not None, "begin comes before"
        fields = self._form.filled(action)
        if fields is None:
            return Outcome(str(self._form.explanation), parts={"openenv/refused": 1.0})
        try:
            data = self._socket.step(fields)
        except RefusedError as error:
            return Outcome(f"This action was refused: {error}", parts={"openenv/refused": 1.0})
        over, reward = bool(data.get("done")), _number(data.get("reward"))
        told = _told(data)
        if told is None:
            return Outcome(self._said(data, None), reward, over=over)
        if over:
            self._end = told
        if told.tools is not None:
            self._servers_tools = _ServersTools(self, told.tools)
        if told.truncated:
            self.max_turns = len(self.episode.turns)
        return Outcome(self._said(data, told), told.reward, told.parts, over and not told.truncated)

    def score(self, episode: Episode) -> Score:
        """Return the server's score, if it is one of llmgym's; others pay for turns and nothing at the end."""
        return self._end.score.score if self._end.score is not None else Score(0.0)

    @property
    def declares_success(self) -> bool:
        """Whether the server says if the episode was a success."""
        return self._end.success is not None

    def succeeded(self, score: Score) -> bool:
        """Tell whether the server says that the episode was a success."""
        return bool(self._end.success)

    def release_episode(self) -> None:
        """Let another episode have the socket."""
        self._socket.release()
        super().release_episode()

    def close(self) -> None:
        """Leave the server, which then has room for another client."""
        self._socket.close()
        super().close()

    @property
    def toolbox(self) -> Toolbox:
        """The server's tools."""
        return self._servers_tools

    def _said(self, data: Json, told: Metadata | None) -> Sequence[Message]:
        if told is not None:
            return [one.message for one in told.messages]
        observation = data.get("observation")
        if not isinstance(observation, dict):
            raise EnvironmentContractError(
                f"expected a JSON object as observation of a server, got {observation!r:.80}"
            )
        if self._observation_field is not None:
            return [Message("user", _shown(observation, self._observation_field))]
        texts = [one for field in _TEXTS if isinstance(one := observation.get(field), str) and one]
        return [Message("user", texts[0] if texts else json.dumps(observation, ensure_ascii=False))]


class _ServersTools(Toolbox):
    """The tools that a server says it has: it answers their calls as it does any reply."""

    def __init__(self, owner: OpenEnv, schemas: Sequence[Json]) -> None:
        super().__init__((), owner, None)
        self._owner, self._schemas = owner, tuple(schemas)

    def __bool__(self) -> bool:
        return bool(self._schemas)

    @property
    def schemas(self) -> Schemas:
        return self._schemas

    def answer(self, action: Action, first: int) -> Outcome:
        return self._owner.respond(_plain(action))


@dataclass(frozen=True)
class _Form:
    """How a reply becomes an action.

    Attributes:
        field: The field that is the reply; None if the reply is the whole action, as JSON.
        explanation: What the agent is told of that; None if a text is all that it takes.
    """

    field: str | None
    explanation: str | None = None

    def filled(self, reply: str) -> Json | None:
        """Return the action that a reply is; None if it is none."""
        reply = well_formed(reply)  # a lone surrogate is no JSON
        if self.field is not None:
            return {self.field: str(reply)}
        value, _ = read_json(reply, max(reply.find("{"), 0))
        return value if isinstance(value, dict) else None


def _form_of(schema: Json) -> _Form:
    """Return how replies become actions of a JSON schema."""
    described = schema.get("properties")
    fields = {name: one for name, one in described.items() if name != "metadata"} if isinstance(described, dict) else {}
    wanted = schema.get("required") or list(fields)
    if len(wanted) == 1 and isinstance(only := fields.get(wanted[0]), dict) and only.get("type") == "string":
        return _Form(wanted[0])
    shown = json.dumps({**schema, "properties": fields}, ensure_ascii=False)
    return _Form(None, f"Reply with one JSON object of this schema: {shown}")


def _shown(observation: Json, field: str) -> str:
    """Return a field of an observation as text."""
    if field not in observation:
        raise ConfigError(
            f"observation_field: the server's observations have no field {field!r}."
            f"{did_you_mean(field, observation)} Fields: {', '.join(observation)}."
        )
    value = observation[field]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _told(data: Json) -> Metadata | None:
    """Return the metadata of an observation, if it is one of llmgym's."""
    observation = data.get("observation")
    metadata = observation.get("metadata") if isinstance(observation, dict) else None
    if not isinstance(metadata, dict) or "llmgym" not in metadata:
        return None
    try:
        return Metadata.model_validate(metadata)
    except pydantic.ValidationError as error:
        raise EnvironmentContractError(f"the metadata of a server's observation are not llmgym's: {error}") from error


def _number(reward: object) -> float:
    """Return a reward, which may be null or a truth value, as a number."""
    if reward is None:
        return 0.0
    if not isinstance(reward, int | float):
        raise EnvironmentContractError(f"expected a number as reward of a server, got {reward!r:.80}")
    return float(reward)


def _plain(action: Action) -> str:
    """Return a reply with its calls in plain text, whatever way its model writes them."""
    if read_calls(action).calls == action.calls:
        return str(action)
    good = [calling(one) for one in action.calls if not isinstance(one, BadCall)]
    bad = [f"{OPENING}\n{one.text}\n{CLOSING}" for one in action.calls if isinstance(one, BadCall)]
    return "\n".join([action.said, *good, *bad])

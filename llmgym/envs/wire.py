"""What an environment of llmgym says over OpenEnv's protocol beyond a text: roles, tools, rewards of turns, scores.

OpenEnv's observations are JSON objects. Those of llmgym have the text as ``content``, and in ``metadata`` all that any
client may want to know; llmgym's own client (`llmgym.envs.adapters.openenv.environment`) reads it back.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal, Self

import pydantic

from llmgym.calls import ToolCall
from llmgym.types import Message, Role, Score, ScoreKind

Json = dict[str, Any]


class _Function(pydantic.BaseModel):
    name: str
    arguments: Json


class _Call(pydantic.BaseModel):
    function: _Function
    id: str | None = None


class ChatMessage(pydantic.BaseModel):
    """A message as OpenAI's protocol and chat templates have it."""

    role: Role
    content: str
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[_Call] | None = None

    @property
    def message(self) -> Message:
        """The message as llmgym has it."""
        calls = tuple(ToolCall(one.function.name, one.function.arguments, one.id) for one in self.tool_calls or ())
        return Message(self.role, self.content, self.name, self.tool_call_id, calls)


class WireScore(pydantic.BaseModel):
    """A `Score`."""

    value: float | None = None
    parts: dict[str, float] = {}  # pydantic copies it
    error: str | None = None
    rewards: list[float] | None = None
    kind: ScoreKind = "reward"

    @property
    def score(self) -> Score:
        """The score as llmgym has it."""
        return Score(**self.model_dump())


class Metadata(pydantic.BaseModel):
    """The metadata of an observation of llmgym's.

    Attributes:
        llmgym: The version of these metadata; those of other environments have no such field.
        messages: The observation as chat messages.
        system_prompt: What the agent is told before the first observation; with the first one only.
        tools: What the agent is told of its tools, as chat templates take it; with the first observation, and where it
            has changed.
        reward: What the newest reply earned at once. The score of an episode comes on top of it.
        parts: The named parts of that, for reports.
        truncated: Whether the episode was cut off; OpenEnv's ``done`` is true of all that are over.
        success: Whether the episode was a success, once it is over.
        score: The score of the episode, once it is over.
    """

    llmgym: Literal[1] = 1
    messages: list[ChatMessage]
    system_prompt: str | None = None
    tools: list[Json] | None = None
    reward: float = 0.0
    parts: dict[str, float] = {}  # pydantic copies it
    truncated: bool = False
    success: float | None = None
    score: WireScore | None = None

    @classmethod
    def saying(cls, messages: Sequence[Message], **rest: Any) -> Self:
        """Return the metadata of messages."""
        return cls.model_validate({"messages": [message.chat for message in messages], **rest})


def wire_score(score: Score | None) -> WireScore | None:
    """Return a score as it is sent."""
    return None if score is None else WireScore.model_validate(asdict(score))

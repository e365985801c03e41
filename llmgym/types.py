"""What text is made of: messages, turns, episodes and their scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, get_args

from llmgym.calls import Action, ToolCall
from llmgym.calls import well_formed as well_formed
from llmgym.errors import EnvironmentContractError

Role = Literal["system", "user", "assistant", "tool"]

_ROLES = get_args(Role)

ScoreKind = Literal["reward", "log_odds", "win_rate"]
"""What the value of a score is. ``reward``: whatever its environment pays. ``log_odds``: its difference from that of
another episode of the task gives, through sigma, the probability of being the better one (Bradley and Terry 1952), as
a reward model has it. ``win_rate``: the probability of beating a sibling, between 0 and 1."""

_SCORE_KINDS = get_args(ScoreKind)


Player = Literal["learner", "frozen"]
"""Who plays a seat of an environment: the policy that learns, or one whose weights stay as they are."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, as chat templates know it.

    Lone surrogates, which neither a tokenizer nor a UTF-8 file takes, become question marks.

    Raises:
        EnvironmentContractError: The role is unknown, or something is no string.

    Attributes:
        role: Who says it. A `tool` answers a call of the agent's.
        content: What is said.
        name: Of the tool; None if it has none, or for other roles.
        call_id: Of the call that a tool answers; None if calls have none.
        calls: The tools that an assistant calls, if it does, apart from what it says. A reply that a model wrote
            has them in its content, as it wrote them.

    Example:
        >>> Message("user", "Which service failed?")
        Message(role='user', content='Which service failed?', name=None, call_id=None, calls=())
        >>> Message("tool", '{"disk": 0.4}', name="metrics", call_id="call_0").chat
        {'role': 'tool', 'content': '{"disk": 0.4}', 'name': 'metrics', 'tool_call_id': 'call_0'}
    """

    role: Role
    content: str
    name: str | None = None
    call_id: str | None = None
    calls: tuple[ToolCall, ...] = ()

    def __post_init__(self) -> None:
        if self.role not in _ROLES:
            raise EnvironmentContractError(f"A Message has one of the roles {get_args(Role)}, got {self.role!r:.80}.")
        if type(self.content) is str and self.content.isascii() and self.name is None and self.call_id is None:
            return  # nothing is left to check in the usual one
        for name in ("content", "name", "call_id"):
            text = getattr(self, name)
            if not (isinstance(text, str) or (text is None and name != "content")):
                raise EnvironmentContractError(
                    f"A Message has a string as {name}, got {type(text).__name__}: {text!r:.80}"
                )
            if text is not None:
                object.__setattr__(self, name, well_formed(text))
        if self.calls and self.role != "assistant":
            raise EnvironmentContractError(f"Only an assistant's Message has calls, got {self.calls!r:.80}.")

    @property
    def chat(self) -> dict[str, Any]:
        """The message as chat templates and OpenAI's protocol have it."""
        calls = [call.chat for call in self.calls]
        rest = {"name": self.name, "tool_call_id": self.call_id, "tool_calls": calls}
        return {"role": self.role, "content": self.content} | {key: value for key, value in rest.items() if value}


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange: what the environment said, and what the agent replied.

    Attributes:
        observation: What the environment said, as text.
        action: What the agent replied.
        heard: The same as `observation`, as messages; by default one of the user's.
        reward: What its environment gave for the reply at once, apart from the score of the episode.
        parts: The named parts of that, for reports.
    """

    observation: str
    action: str
    heard: tuple[Message, ...] = ()
    reward: float = 0.0
    parts: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.heard:
            object.__setattr__(self, "heard", (Message("user", self.observation),))


Said = str | Message | Sequence[Message]
"""What an environment says: a text, which is a user's message, or one or more messages."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an environment makes of a reply, where that is more than an answer.

    Attributes:
        said: The answer; where the episode is over, the last words, which nobody replies to.
        reward: What the reply earns at once. The score of the episode comes on top of it.
        parts: The named parts of that, for reports. Those of several turns are summed.
        over: Whether the episode is over.
        truncated: Whether a limit of the environment's own cuts the episode off here; then it is not over.

    Example:
        >>> Outcome("Right. Which service calls it?", reward=0.5, parts={"service": 0.5}).over
        False
    """

    said: Said = ()
    reward: float = 0.0
    parts: Mapping[str, float] = field(default_factory=dict)
    over: bool = False
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """What a scorer says of an episode: a value, or the reason why there is none.

    A missing score is not a score of zero: it stays out of baselines and losses.

    Attributes:
        value: The reward, or None if the episode could not be scored.
        parts: The named parts that the value is made of, for reports.
        error: Why the value is missing; None if it is not.
        rewards: What each turn earned, oldest first: they sum up to the value; None if all of it comes with the last.
        kind: What the value is.
    """

    value: float | None
    parts: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    rewards: Sequence[float] | None = None
    kind: ScoreKind = "reward"

    def __post_init__(self) -> None:
        if self.kind not in _SCORE_KINDS:
            raise ValueError(f"A Score is of one of the kinds {get_args(ScoreKind)}, got {self.kind!r:.80}.")
        if (self.value is None) != (self.error is not None):
            raise ValueError(f"A Score has either a value or an error, got value={self.value!r}, error={self.error!r}.")
        if self.error is not None:
            object.__setattr__(self, "error", well_formed(self.error))


@dataclass(slots=True)
class Episode:
    """A conversation between an environment and an agent, so far.

    Attributes:
        system_prompt: What the agent is told before the first observation, if anything.
        turns: The finished exchanges, oldest first.
        task: What only the environment and its scorer know, such as the right answer.
        seat: Whose conversation it is, in an environment of several seats.
        scored: What the environment itself scored it, apart from rewards of turns, where another scorer is asked.
    """

    system_prompt: str | None = None
    turns: list[Turn] = field(default_factory=list)
    task: Any = None
    seat: int = 0
    scored: Score | None = None

    @property
    def messages(self) -> list[Message]:
        """The conversation as chat messages, the system prompt first."""
        messages = [Message("system", self.system_prompt)] if self.system_prompt else []
        for turn in self.turns:
            messages += [*turn.heard, _reply(turn.action)]
        return messages

    @property
    def actions(self) -> list[str]:
        """The agent's replies, oldest first."""
        return [turn.action for turn in self.turns]


def _reply(action: str) -> Message:
    """Return a reply as a message: its calls apart from what it says, if all of them can be read."""
    calls = action.calls if isinstance(action, Action) else ()
    good = tuple(call for call in calls if isinstance(call, ToolCall))
    if isinstance(action, Action) and good and len(good) == len(calls):
        return Message("assistant", action.said, calls=good)
    return Message("assistant", str(action))


def as_text(messages: Sequence[Message]) -> str:
    r"""Return what messages say, as the observation of a Gymnasium environment.

    Examples:
        >>> as_text([Message("tool", "disk: 40 %"), Message("user", "Go on.")])
        'disk: 40 %\n\nGo on.'
    """
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(message.content for message in messages)


def asks(messages: Sequence[Message]) -> bool:
    """Tell whether a reply can follow messages: the last is a user's or a tool's."""
    return bool(messages) and messages[-1].role in ("user", "tool")


def answers(messages: Sequence[Message]) -> bool:
    """Tell whether messages can follow a prompt: replies, first and last, with what users or tools say between them."""
    replies = [message.role == "assistant" for message in messages]
    known = all(message.role in ("assistant", "user", "tool") for message in messages)
    return bool(replies) and known and replies[0] and replies[-1] and (True, True) not in pairwise(replies)

"""`ToolFormat`: how a chat template shows tools, and how its model writes calls of them."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmgym.calls import (
    CLOSING,
    OPENING,
    Action,
    Call,
    Schemas,
    ToolCall,
    action_of,
    calling,
    is_id,
    made_id,
    without_thought,
)
from llmgym.errors import ModelError
from llmgym.rollout.call_syntax import SYNTAXES, Reader, as_json_lines, types_of
from llmgym.rollout.rendering import Renderer, mark
from llmgym.types import Message, Role, well_formed

_TEXT = {"type": "string", "description": "Which one."}
_PROBE: Schemas = (
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Looks something up.",
            "parameters": {"type": "object", "properties": {"place": _TEXT, "count": {"type": "integer"}}},
        },
    },
)
_PROBE_CALLS = (ToolCall("look_up", {"place": 'Zürich "A"\n1 < 2', "count": 3}), ToolCall("look_up", {"place": ""}))

_PLAIN = (
    "You can call these tools:\n{tools}\n"
    f'To call one, write:\n{OPENING}\n{{{{"name": "<its name>", "arguments": {{{{<its arguments>}}}}}}}}\n{CLOSING}\n'
    "You can call several, one after another. What they answer comes next."
)


@dataclass(frozen=True)
class ToolFormat:
    """How tools are shown to a model, and its calls written and read.

    Where a chat template shows tools, calls and answers, and the calls can be read back, it is the template's own
    way. Anywhere else it is plain text: the tools are in the system prompt, and calls between tags, as in
    `llmgym.calls`.

    Attributes:
        renderer: Of the template.
        around: What the template puts before and after the reply that ends a conversation.
        opening: What it puts before a reply that is to be sampled.
        reader: Reads calls; None for plain text.
        thinking: Whether the generation prompt begins a thought.
    """

    renderer: Renderer
    around: tuple[str, str]
    opening: str
    reader: Reader | None = None
    thinking: bool = False

    @property
    def native(self) -> bool:
        """Whether it is the template's own."""
        return self.reader is not None

    def find(self) -> "ToolFormat":
        """Return the template's own format if it has one that holds, else this one."""
        if not (self._shows_tools() and self._shows_answers()):
            return self
        for reader in SYNTAXES:
            found = replace(self, reader=reader)
            if all(found._reads_back([call]) for call in _PROBE_CALLS):  # one of its own kind
                return found
        return self

    def declare(self, messages: Sequence[Message], tools: Schemas) -> list[Message]:
        """Put tools into the system prompt, as text."""
        told = _PLAIN.format(tools=as_json_lines(tools))
        first = messages[0]
        if first.role != "system":
            return [Message("system", told), *messages]
        return [Message("system", f"{first.content}\n\n{told}"), *messages[1:]]

    def content(self, said: str, calls: Sequence[ToolCall]) -> str:
        """Return the content of a reply that says something and calls tools; see `write`."""
        written, before = self.write(said, calls), self.around[0].removeprefix(self.opening)
        return written.removeprefix(before) if self.native else written

    def shows(self, calls: Sequence[ToolCall]) -> bool:
        """Tell whether the template shows a reply that makes these calls; some take one at a time."""
        return self.native and (len(calls) == 1 or self._written("", calls) is not None)

    def write(self, said: str, calls: Sequence[ToolCall]) -> str:
        """Return a reply that says something and calls tools, from where the generation prompt ends.

        Raises:
            ModelError: The template shows some of it only.
        """
        if self.reader is None:
            return calling(*calls, said=said)
        for written in (self._written(said, calls), self._one_by_one(said, calls)):
            if written is not None and self._holds(written, said, calls):
                return well_formed(written)
        raise ModelError(
            f"The chat template of {self.renderer.name!r} does not show all of a reply that says {said!r:.60} and "
            f"calls {', '.join(call.name for call in calls)} so that it can be read back: expected calls without a "
            "text, one call alone, or arguments without the marks that the template puts around them."
        )

    def read(self, text: str, tools: Schemas, *, thought: bool = False) -> Action:
        """Return a reply with its calls; those that it only thinks of are none.

        Args:
            text: What the reply says.
            tools: What can be called.
            thought: Whether a thought has ended before the text.
        """
        thoughts, rest = without_thought(text, opened=self.thinking and not thought)
        reader = self.reader or SYNTAXES[0]
        action = action_of(rest, reader(rest, types_of(tools)))
        return Action(text, (thoughts + action.said).strip(), action.calls)

    def _shows_tools(self) -> bool:
        """Whether the template shows a tool, and a system prompt beside it."""
        roles: tuple[Role, ...] = ("system", "user")
        try:
            shown = self.renderer.render(roles, [mark(0), mark(1)], tools=_PROBE)
        except ModelError:
            return False
        return all(said in shown for said in (mark(0), mark(1), "look_up", "place", "count"))

    def _shows_answers(self) -> bool:
        """Whether the template shows what tools answer to calls."""
        answers = [Message("tool", mark(i), call.name, call.id) for i, call in enumerate(_numbered(_PROBE_CALLS))]
        roles: tuple[Role, ...] = ("user", "assistant", "tool", "tool")
        extra = [{}, {"tool_calls": [call.chat for call in _numbered(_PROBE_CALLS[:1])]}, *map(_named, answers)]
        try:
            texts = [self.renderer.render(roles[:n], [".", "", mark(0), mark(1)][:n], names=extra[:n]) for n in (3, 4)]
        except ModelError:
            return False
        return mark(0) in texts[0] and mark(0) in texts[1] and mark(1) in texts[1]

    def _reads_back(self, calls: Sequence[ToolCall]) -> bool:
        written = self._written("", calls)
        return written is not None and self._holds(written, "", calls)

    def _holds(self, written: str, said: str, calls: Sequence[ToolCall]) -> bool:
        """Whether what was written is read as what it was written of."""
        assert self.reader is not None
        written = written.removeprefix(self.around[0].removeprefix(self.opening))
        pieces = action_of(written, self.reader(written, types_of(_types_like(calls))))
        return _without_ids(pieces.calls) == _without_ids(calls) and pieces.said == said.strip()

    def _written(self, said: str, calls: Sequence[ToolCall]) -> str | None:
        """Return what the template makes of a reply with calls; None if it refuses them."""
        extra: list[Mapping[str, Any]] = [{}, {"tool_calls": [call.chat for call in _numbered(calls)]}]
        try:
            text = self.renderer.render(("user", "assistant"), [".", said], generate=False, names=extra)
        except ModelError:
            return None
        after = self.around[1]
        if not (text.startswith(self.opening) and text.endswith(after)):
            return None
        return text[len(self.opening) : len(text) - len(after)]

    def _one_by_one(self, said: str, calls: Sequence[ToolCall]) -> str | None:
        """Return calls that the template shows one at a time, as models of such templates write several."""
        each = [self._written(said if i == 0 else "", [call]) for i, call in enumerate(calls)]
        return None if None in each else "; ".join(one for one in each if one is not None)


def called_by(answer: Message) -> Message:
    """Return a reply that calls the tool that answers, so that a template shows the answer."""
    return Message("assistant", "", calls=(ToolCall(answer.name or "tool", {}, answer.call_id),))


def numbered(answer: Sequence[Message]) -> list[Message]:
    """Give an id to the answers of tools that have none, for templates that show it."""
    return [
        replace(message, call_id=made_id(i)) if message.role == "tool" and message.call_id is None else message
        for i, message in enumerate(answer)
    ]


def paired(messages: Sequence[Message]) -> list[Message]:
    """Give calls and their answers ids that every template takes, where theirs are not.

    An answer belongs to the call whose id it names, or else to the one in its place.
    """
    found, made = list(messages), map(made_id, itertools.count())
    for at, message in enumerate(messages):
        if not message.calls:
            continue
        told = list(itertools.takewhile(lambda one: one.role == "tool", messages[at + 1 :]))
        named = {one.call_id: i for i, one in enumerate(told) if one.call_id}
        calls = []
        for place, call in enumerate(message.calls):
            answer = place if call.id is None else named.get(call.id, place)
            known = (told[answer].call_id if answer < len(told) else None, call.id)
            id = next(filter(is_id, known), None) or next(made)
            calls.append(replace(call, id=id))
            if answer < len(told):
                found[at + 1 + answer] = replace(told[answer], call_id=id)
        found[at] = replace(message, calls=tuple(calls))
    return found


def _numbered(calls: Sequence[ToolCall]) -> list[ToolCall]:
    """Give an id to calls without one."""
    return [ToolCall(call.name, call.arguments, call.id or made_id(i)) for i, call in enumerate(calls)]


def _named(message: Message) -> Mapping[str, Any]:
    return {key: value for key, value in message.chat.items() if key not in ("role", "content")}


def _without_ids(calls: Sequence[Call]) -> list[object]:
    return [(call.name, dict(call.arguments)) if isinstance(call, ToolCall) else call for call in calls]


def _types_like(calls: Sequence[ToolCall]) -> Schemas:
    """Return tools that take the arguments of calls, by which a reply that is known is read back."""
    texts = {
        call.name: {key: _TEXT for key, value in call.arguments.items() if isinstance(value, str)} for call in calls
    }
    return tuple(
        {"type": "function", "function": {"name": name, "parameters": {"properties": properties}}}
        for name, properties in texts.items()
    )

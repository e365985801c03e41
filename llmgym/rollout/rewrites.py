"""`find_rewrites`: what a chat template does to what was said before, found out on a conversation of several turns."""

import itertools
from collections.abc import Sequence
from typing import Protocol

from llmgym.types import Message, Role

_CHAT = (
    Message("system", "Be brief."),
    Message("user", "first"),
    Message("assistant", "Reply alpha."),
    Message("user", "second"),
    Message("assistant", "Reply beta."),
    Message("user", "third"),
)
_PROBES = {
    "changes white space around replies": ("\n %s \n", "\n %s \n"),
    "drops or changes the thinking of earlier replies": (
        "<think>\nHm.\n</think>\n\n%s",
        "<think>\nOh.\n</think>\n\n%s",
    ),
}
"""What a template may do to replies of a certain kind, and how the replies of `_CHAT` become of that kind."""


class Template(Protocol):
    """What turns messages into text, whole conversations and pieces of them; see `ChatTemplate`."""

    def render(self, messages: Sequence[Message]) -> str:
        """Return a conversation as text."""
        ...

    def reply(self, content: str) -> str:
        """Return a reply as it is written in a conversation."""
        ...

    def bridge(self, answer: Sequence[Message]) -> str:
        """Return what stands between two replies."""
        ...

    def harmless(self, content: str, role: Role = "user") -> str:
        """Return a text without control tokens."""
        ...


def find_rewrites(template: Template) -> list[str]:
    """Render conversations of several turns whole and piece by piece; say in words where the two differ."""
    found: dict[str, tuple[str, str]] = {}
    for chat in (_CHAT[:4], _CHAT):
        whole = template.render(chat)
        turns = zip(chat[2::2], chat[3::2], strict=True)
        grown = template.render(chat[:2]) + "".join(
            template.reply(reply.content) + template.bridge([answer]) for reply, answer in turns
        )
        pairs = {"renders earlier messages in another way once others follow": (grown, whole)}
        for what, kinds in _PROBES.items():
            replies = {plain.content: kind % plain.content for plain, kind in zip(_CHAT[2::2], kinds, strict=True)}
            said = [Message(message.role, replies.get(message.content, message.content)) for message in chat]
            expected = whole
            for plain, reply in replies.items():
                expected = expected.replace(plain, template.harmless(reply, "assistant"))
            pairs[what] = (expected, template.render(said))
        for what, (one, other) in pairs.items():
            if one != other:
                found.setdefault(what, _difference(one, other))
    return [f"{what} ({said!r} becomes {rendered!r})" for what, (said, rendered) in found.items()]


def alike(one: Sequence[object], other: Sequence[object]) -> int:
    """Return how many items, or characters, two sequences begin with alike."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _difference(one: str, other: str) -> tuple[str, str]:
    """Cut what two texts begin and end with alike off both."""
    start = alike(one, other)
    one, other = one[start:], other[start:]
    end = alike(one[::-1], other[::-1])
    return one[: len(one) - end], other[: len(other) - end]

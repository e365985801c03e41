"""`ChatTemplate`: messages to text through a tokenizer's chat template, and what it does to what was said before."""

import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from llmgym.errors import ModelError
from llmgym.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_REPLY = "\N{OBJECT REPLACEMENT CHARACTER}reply\N{OBJECT REPLACEMENT CHARACTER}"  # marks a reply in a rendered chat

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


class ChatTemplate:
    """A tokenizer's chat template.

    Args:
        tokenizer: Its owner. If the template refuses a system message, its text goes before
            the first user message.

    Raises:
        ModelError: There is no template, or it does not fit a conversation of several turns:
            it does not render one, hides replies, or does not open the next one.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer
        self.name = tokenizer.name_or_path
        if tokenizer.chat_template is None:
            raise ModelError(
                f"The tokenizer of {self.name!r} has no chat template: "
                "expected a chat_template.jinja or a chat_template in its tokenizer_config.json."
            )
        self._special = re.compile(
            "|".join(map(re.escape, sorted(tokenizer.all_special_tokens, key=len, reverse=True)))
        )
        self._takes_system = True
        try:
            self.render([Message("system", "."), Message("user", ".")])
        except ModelError:
            self._takes_system = False
        self._check_opening()
        self.rewrites = self._find_rewrites()
        """What it does to earlier messages, in words; empty if a conversation only ever grows."""

    def render(self, messages: Sequence[Message], *, generate: bool = True) -> str:
        """Return a conversation as text, up to where the next reply begins if `generate`."""
        if messages[0].role == "system" and not self._takes_system:
            first = Message("user", f"{messages[0].content}\n\n{messages[1].content}")
            messages = [first, *messages[2:]]
        chat = [{"role": message.role, "content": self.harmless(message.content)} for message in messages]
        try:
            return str(self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=generate))
        except TemplateError as error:
            raise ModelError(f"The chat template of {self.name!r} does not render: {error}") from error

    def bridge(self, content: str) -> str:
        """Return the text between a reply and the next one, if the environment answers `content`."""
        chat = [Message("user", "."), Message("assistant", _REPLY), Message("user", content)]
        return self._around_reply(chat)[1]

    def only_grows(self, messages: Sequence[Message]) -> bool:
        """Whether the newest reply and its answer stand, as they are, behind what stood before the reply.

        Args:
            messages: The conversation; a reply and what the environment answered come last.
        """
        *before, reply, answer = messages
        grown = self.render(before) + self.harmless(reply.content) + self.bridge(answer.content)
        return self.render(messages) == grown

    def harmless(self, content: str) -> str:
        """Break up special tokens spelled out in a message, which would otherwise end it."""
        return self._special.sub(lambda match: f"{match[0][0]} {match[0][1:]}", content)

    def _around_reply(self, chat: Sequence[Message]) -> tuple[str, str]:
        """Split a rendered conversation at the reply that `_REPLY` stands for."""
        before, mark, behind = self.render(chat).partition(_REPLY)
        if not mark:
            raise ModelError(f"The chat template of {self.name!r} does not show the assistant's replies.")
        return before, behind

    def _check_opening(self) -> None:
        """Refuse a template that puts something before each reply, but not where the next one is asked for."""
        user = Message("user", ".")
        shown, _ = self._around_reply([user, Message("assistant", _REPLY), user])
        closed = self.render([user], generate=False)
        if shown.strip() != closed.strip() and self.render([user]) == closed:
            header = shown[_alike(shown, closed) :]
            raise ModelError(
                f"The chat template of {self.name!r} puts {header!r} before a reply, but add_generation_prompt "
                "does not: expected a template that opens the reply to be sampled."
            )

    def _find_rewrites(self) -> list[str]:
        """Render conversations of several turns whole and piece by piece; say where the two differ."""
        found: dict[str, tuple[str, str]] = {}
        for chat in (_CHAT[:4], _CHAT):
            whole = self.render(chat)
            turns = zip(chat[2::2], chat[3::2], strict=True)
            grown = self.render(chat[:2]) + "".join(
                reply.content + self.bridge(answer.content) for reply, answer in turns
            )
            pairs = {"renders earlier messages in another way once others follow": (grown, whole)}
            for what, kinds in _PROBES.items():
                replies = {plain.content: kind % plain.content for plain, kind in zip(_CHAT[2::2], kinds, strict=True)}
                said = [Message(message.role, replies.get(message.content, message.content)) for message in chat]
                expected = whole
                for plain, reply in replies.items():
                    expected = expected.replace(plain, self.harmless(reply))
                pairs[what] = (expected, self.render(said))
            for what, (one, other) in pairs.items():
                if one != other:
                    found.setdefault(what, _difference(one, other))
        return [f"{what} ({said!r} becomes {rendered!r})" for what, (said, rendered) in found.items()]


def _difference(one: str, other: str) -> tuple[str, str]:
    """Cut what two texts begin and end with alike off both."""
    start = _alike(one, other)
    one, other = one[start:], other[start:]
    end = _alike(one[::-1], other[::-1])
    return one[: len(one) - end], other[: len(other) - end]


def _alike(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))

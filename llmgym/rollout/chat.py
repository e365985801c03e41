"""`ChatCodec`: messages to tokens, append-only or rendered again at each turn."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from llmgym.calls import CLOSING, OPENING, Schemas
from llmgym.config.choices import History
from llmgym.errors import ModelError
from llmgym.rollout.template import ChatTemplate
from llmgym.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAID = "Reply"  # what a reply says that is looked at


class ChatCodec:
    """Turns a growing conversation into tokens.

    A conversation is rendered piece by piece: `prompt` for all before the first
    reply, `bridge` for what stands between two replies. Sampled tokens are kept as they
    were sampled.

    Some templates rewrite what was said before. By default that is not followed: nothing
    is rendered twice and nothing decoded is encoded again. With ``history="template"`` it
    is: where the template no longer renders what stood there, `rewritten` gives the whole
    conversation anew, earlier replies decoded and encoded again, and a new row of the
    trajectory begins with it. Where the template rewrites nothing the two are the same.

    Args:
        tokenizer: A Hugging Face tokenizer with a chat template.
        stop_token_ids: Tokens that end a reply besides the tokenizer's own and the template's.
        history: Whether what the template does to earlier turns is followed.

    Raises:
        ModelError: The tokenizer has no chat template, or one that does not fit a
            conversation of several turns.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", stop_token_ids: Iterable[int] = (), history: History = "append"
    ) -> None:
        self.tokenizer = tokenizer
        self.history = history
        eos = tokenizer.eos_token_id
        self.template = ChatTemplate(tokenizer, stop_token_ids)
        end = eos if self.template.end_token is None else self.template.end_token
        if end is None:
            raise ModelError(
                f"The chat template of {self.template.name!r} ends a reply with plain text, and its tokenizer has no "
                "end-of-sequence token: expected one or the other to end a reply with a token."
            )
        self.end_token = int(end)
        """The token that a reply ends with."""
        ends = {*stop_token_ids, self.end_token, eos, self.template.end_before_tools} - {None}
        self.stop_token_ids = tuple(sorted(ends))
        """The tokens that end a reply: the end of sequence, the model's own, and what the template puts after it."""
        self._anchor = self._encode("a")
        self._anchor_text = self._decode(self._anchor)
        self._around = _split(self.spell(self.reply(_SAID)[:-1]))
        self._shown_before = _split(self.template.reply(_SAID))[0]
        self.notice = self._notice()
        """What a user has to know of the template and its tokens; None if conversations grow as they are rendered."""

    def prompt(self, messages: Sequence[Message], tools: Schemas = ()) -> list[int]:
        """Return the tokens up to where the agent's first reply begins.

        Args:
            messages: What was said before it.
            tools: The JSON schemas of the tools that it can call.
        """
        return self._encode(self.template.render(messages, tools))

    def fits(self, messages: Sequence[Message], context_length: int) -> bool:
        """Tell whether messages may fit a context, without encoding them: if no token of theirs were a short one."""
        return sum(len(message.content) for message in messages) <= context_length * self._longest

    @cached_property
    def _longest(self) -> int:
        """Characters of a text that become one token, at most."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        composes = 1 if backend is not None and backend.normalizer is None else 4  # characters into one
        return composes * max(len(token) for token in self.tokenizer.get_vocab())

    def bridge(self, answer: Sequence[Message], last_token: int) -> list[int]:
        """Return the tokens between a reply and the next one.

        Args:
            answer: What the environment answered, one message or several.
            last_token: The last token of the reply. If it is the one that the template puts
                after a reply, it is not repeated.
        """
        before, after = self.template.around_reply(answer)
        tokens = self._encode_after(before, after)
        if tokens[:1] == [last_token] and last_token in self.template.control.ids:
            return tokens[1:]
        if last_token not in self.stop_token_ids or last_token not in tokens:
            return tokens
        end = tokens.index(last_token) + 1
        closing = self.template.closing if last_token == self.end_token else ""
        ends_reply = (closing and after.startswith(closing)) or not self.spell(tokens[: end - 1]).strip()
        return tokens[end:] if ends_reply else tokens

    def reply(self, said: str | Message, answer: Sequence[Message] = ()) -> list[int]:
        """Return the tokens of a reply that was not sampled, the end token included.

        They are those that a whole conversation which ends with this reply has there. Where a turn
        ends with the token that begins the next one, as GLM's do, it is that of `answer`, if there is one.
        """
        if not isinstance(said, str) and said.calls:
            said, *answer = self.template.paired([said, *answer])
        closing = self.template.closing
        tokens = self._encode_after(self.template.opening, self.template.reply(said) + closing)
        if closing:
            return tokens
        begun = self._encode_after(*self.template.around_reply(answer))[:1] if answer else []
        return [*tokens, *(begun if self.template.control.ids & {*begun} else [self.end_token])]

    def rewritten(
        self, messages: Sequence[Message], reply: Sequence[int] | None = None, tools: Schemas = ()
    ) -> list[int] | None:
        """Return the tokens of the whole conversation if the next reply has to be sampled after them.

        Args:
            messages: The conversation; a reply and what the environment answered, in one message or several, come last.
            reply: The tokens of that reply; None if it is as it would be written.
            tools: What can be called.

        Returns:
            None if the conversation goes on with a `bridge`, as it always does with
            ``history="append"``.
        """
        if self.history == "append":
            return None
        if self.template.only_grows(messages, self._said(reply) if reply else None, tools):
            return None
        return self._encode(self.template.render(messages, tools))

    def action(self, reply: Sequence[int], tools: Schemas = ()) -> str:
        """Return what a reply says, as `text` does; where there are tools, with the calls that are in it."""
        left, text, _ = self._parts(reply)
        return self.template.tool_format.read(text, tools, thought=bool(left.strip())) if tools else text

    def text(self, tokens: Sequence[int]) -> str:
        """Return what a reply says, special tokens spelled out, but none that ends a reply.

        What the template and the tokenizer put around whatever is said is left out: spaces, or
        a thought that is empty.
        """
        return self._parts(tokens)[1]

    def _said(self, reply: Sequence[int]) -> str:
        """Return a reply as the template would have to show it, up to the token that ends it or would do so."""
        left, text, right = self._parts(reply)
        left = self._shown_before if left == self._around[0] else ""
        closed = right == self._around[1] or reply[-1] not in self.stop_token_ids
        return left + text + (self.template.padding[1] if closed else right)

    def _parts(self, reply: Sequence[int]) -> tuple[str, str, str]:
        """Return the text before whatever a reply says, if it is there, what this one says, and what follows it."""
        ended = len(reply) > 0 and reply[-1] in self.stop_token_ids
        text = self.spell([token for token in reply if token not in self.stop_token_ids])
        left, right = self._around
        left = left if text.startswith(left) else ""
        right = right if ended and text.endswith(right) else ""
        return left, text.removeprefix(left).removesuffix(right), right

    def spell(self, tokens: Sequence[int]) -> str:
        """Return tokens from anywhere in a conversation as the text that they stand for, special tokens spelled out."""
        # Some tokenizers leave the first space out of whatever they decode.
        return self._decode([*self._anchor, *tokens]).removeprefix(self._anchor_text)

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _encode_after(self, before: str, text: str) -> list[int]:
        """Return the tokens that a text has after another: a tokenizer may begin a text in another way.

        Where it joins the two at the border, the text begins with tokens of its own.
        """
        for context in (before, "\n", "a"):
            start = self._encode(context)
            whole = self._encode(context + text)
            if whole[: len(start)] == start:
                return whole[len(start) :]
        return self._encode(text)

    @property
    def tool_notice(self) -> str | None:
        """What a user whose environment has tools has to know; None if the template has its own way of showing them."""
        if self.template.tool_format.native:
            return None
        return (
            f"The chat template of {self.template.name!r} has no way of showing tools and calls that can be read back. "
            "The tools are described in the system prompt, and the model is asked to write its calls between "
            f"{OPENING} and {CLOSING}."
        )

    def _notice(self) -> str | None:
        notices = []
        if rewrites := self.template.rewrites:
            followed = {
                "append": "This is not followed (history append): the model sees every reply as it was sampled.",
                "template": "This is followed (history template): the model sees what is rendered at each turn, "
                "and an episode whose past was rewritten gives several rows that share its reward.",
            }
            notices.append(
                f"The chat template of {self.template.name!r} {'; it '.join(rewrites)}. {followed[self.history]}"
            )
        if self.template.end_token is None:
            notices.append(
                f"The chat template of {self.template.name!r} ends a reply with plain text. A reply that is written "
                f"or stops by itself ends with {self.tokenizer.convert_ids_to_tokens(self.end_token)!r} besides, which "
                "stays in the conversation."
            )
        if not self._joins_seamlessly():
            notices.append(
                f"The tokenizer of {self.template.name!r} joins a reply with the text around it: a conversation that "
                "grows piece by piece has the same text, but other tokens there than one encoded whole."
            )
        return " ".join(notices) or None

    def _joins_seamlessly(self) -> bool:
        """Whether a conversation that grows piece by piece has the tokens that it has as a whole."""
        chat = [Message("user", "first"), Message("assistant", "one"), Message("user", "second")]
        if not self.template.only_grows(chat):
            return True  # the template rewrites even this: there is no such conversation
        reply = self.reply("one")
        if self.template.end_token is None:
            del reply[-1]
        return self.prompt(chat) == [*self.prompt(chat[:1]), *reply, *self.bridge(chat[2:], reply[-1])]


def _split(reply: str) -> tuple[str, str]:
    """Return the text before and after what a reply says."""
    before, _, after = reply.partition(_SAID)
    return before, after

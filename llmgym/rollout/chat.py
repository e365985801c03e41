"""`ChatCodec`: messages to tokens through the tokenizer's own chat template, append-only."""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from llmgym.errors import ModelError
from llmgym.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_REPLY = "\N{OBJECT REPLACEMENT CHARACTER}reply\N{OBJECT REPLACEMENT CHARACTER}"  # marks a reply in a rendered chat


class ChatCodec:
    """Turns a growing conversation into a growing list of tokens.

    A conversation is rendered once, piece by piece: `prompt` for what stands before the
    first reply, `bridge` for what stands between two replies. Sampled tokens are kept as
    they were sampled; nothing is rendered twice and nothing decoded is encoded again.

    Args:
        tokenizer: A Hugging Face tokenizer with a chat template. If the template refuses a
            system message, its text goes before the first user message.
        stop_token_ids: Tokens that end a reply besides the tokenizer's own.

    Raises:
        ModelError: The tokenizer has no chat template, or its template does not show replies.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", stop_token_ids: Iterable[int] = ()) -> None:
        self.tokenizer = tokenizer
        if tokenizer.chat_template is None:
            raise ModelError(
                f"The tokenizer of {tokenizer.name_or_path!r} has no chat template: "
                "expected a chat_template.jinja or a chat_template in its tokenizer_config.json."
            )
        if tokenizer.eos_token_id is None:
            raise ModelError(f"The tokenizer of {tokenizer.name_or_path!r} has no end-of-sequence token.")
        self._special = re.compile(
            "|".join(map(re.escape, sorted(tokenizer.all_special_tokens, key=len, reverse=True)))
        )
        self._takes_system = True
        try:
            self._render([Message("system", "."), Message("user", ".")], generate=True)
        except ModelError:
            self._takes_system = False
        behind_reply = {self._bridge_tokens(".")[0]} & set(tokenizer.all_special_ids)
        self.stop_token_ids = tuple(sorted({tokenizer.eos_token_id, *stop_token_ids, *behind_reply}))
        """The tokens that end a reply: the end of sequence, and what the template puts behind a reply."""

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens up to where the agent's first reply begins."""
        return self._encode(self._render(messages, generate=True))

    def bridge(self, content: str, last_token: int) -> list[int]:
        """Return the tokens between a reply and the next one.

        Args:
            content: What the environment answered.
            last_token: The last token of the reply. If it is the one that the template puts
                behind a reply, it is not repeated.
        """
        tokens = self._bridge_tokens(content)
        if last_token not in self.stop_token_ids or last_token not in tokens:
            return tokens
        end = tokens.index(last_token)
        return tokens if self.text(tokens[:end]).strip() else tokens[end + 1 :]

    def text(self, tokens: Sequence[int]) -> str:
        """Return a reply's tokens as text, special tokens left out."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _bridge_tokens(self, content: str) -> list[int]:
        chat = [Message("user", "."), Message("assistant", _REPLY), Message("user", content)]
        return self._encode(self._reply_end(self._render(chat, generate=True)))

    def _reply_end(self, rendered: str) -> str:
        _, mark, behind = rendered.partition(_REPLY)
        if not mark:
            raise ModelError(
                f"The chat template of {self.tokenizer.name_or_path!r} does not show the assistant's replies."
            )
        return behind

    def _render(self, messages: Sequence[Message], *, generate: bool) -> str:
        if messages[0].role == "system" and not self._takes_system:
            first = Message("user", f"{messages[0].content}\n\n{messages[1].content}")
            messages = [first, *messages[2:]]
        chat = [{"role": message.role, "content": self._harmless(message.content)} for message in messages]
        try:
            return str(self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=generate))
        except TemplateError as error:
            raise ModelError(
                f"The chat template of {self.tokenizer.name_or_path!r} does not render: {error}"
            ) from error

    def _harmless(self, content: str) -> str:
        """Break up special tokens spelled out in a message, which would otherwise end it."""
        return self._special.sub(lambda match: f"{match[0][0]} {match[0][1:]}", content)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

"""`ChatCodec`: messages to tokens, append-only or rendered again at each turn."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from llmgym.errors import ModelError
from llmgym.rollout.template import ChatTemplate
from llmgym.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

History = Literal["append", "template"]
"""What the model sees of earlier turns. ``append``: what was said, token by token. ``template``: what
the chat template makes of it now, such as replies without their thinking."""


class ChatCodec:
    """Turns a growing conversation into tokens.

    A conversation is rendered piece by piece: `prompt` for what stands before the first
    reply, `bridge` for what stands between two replies. Sampled tokens are kept as they
    were sampled.

    Some templates rewrite what was said before. By default that is not followed: nothing
    is rendered twice and nothing decoded is encoded again. With ``history="template"`` it
    is: where the template no longer renders what stood there, `rewritten` gives the whole
    conversation anew, earlier replies decoded and encoded again, and a new row of the
    trajectory begins with it. Where the template rewrites nothing the two are the same.

    Args:
        tokenizer: A Hugging Face tokenizer with a chat template.
        stop_token_ids: Tokens that end a reply besides the tokenizer's own.
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
        self.template = ChatTemplate(tokenizer)
        if tokenizer.eos_token_id is None:
            raise ModelError(f"The tokenizer of {tokenizer.name_or_path!r} has no end-of-sequence token.")
        behind_reply = self._bridge_tokens(".")[0]
        self.end_token = behind_reply if behind_reply in tokenizer.all_special_ids else int(tokenizer.eos_token_id)
        """The token that a reply ends with."""
        self.stop_token_ids = tuple(sorted({tokenizer.eos_token_id, *stop_token_ids, self.end_token}))
        """The tokens that end a reply: the end of sequence, and what the template puts behind a reply."""
        self.notice = self._notice()
        """What a user has to know of the template and its tokens; None if conversations grow as they are rendered."""

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens up to where the agent's first reply begins."""
        return self._encode(self.template.render(messages))

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

    def reply(self, content: str) -> list[int]:
        """Return the tokens of a reply that was not sampled, the end token included."""
        return [*self._encode(self.template.harmless(content)), self.end_token]

    def rewritten(self, messages: Sequence[Message]) -> list[int] | None:
        """Return the tokens of the whole conversation if the next reply has to be sampled after them.

        Args:
            messages: The conversation; a reply and what the environment answered come last.

        Returns:
            None if the conversation goes on with a `bridge`, as it always does with
            ``history="append"``.
        """
        if self.history == "append" or self.template.only_grows(messages):
            return None
        return self._encode(self.template.render(messages))

    def text(self, tokens: Sequence[int]) -> str:
        """Return a reply's tokens as text, special tokens left out."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _bridge_tokens(self, content: str) -> list[int]:
        return self._encode(self.template.bridge(content))

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

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
        if not self._joins_seamlessly():
            notices.append(
                f"The tokenizer of {self.template.name!r} joins a reply with the text around it: a conversation that "
                "grows piece by piece has the same text, but other tokens there than one encoded whole."
            )
        return " ".join(notices) or None

    def _joins_seamlessly(self) -> bool:
        """Whether the pieces around a reply have the tokens that they have in a whole conversation."""
        chat = [Message("user", "first"), Message("assistant", "one"), Message("user", "second")]
        if not self.template.only_grows(chat):
            return True  # the template rewrites even this: there is no such conversation
        prompt, bridge, whole = self.prompt(chat[:1]), self._bridge_tokens("second"), self.prompt(chat)
        return whole[: len(prompt)] == prompt and whole[-len(bridge) :] == bridge

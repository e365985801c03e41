"""`ControlTokens`: which tokens structure a conversation, and how text is kept from becoming one."""

import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Tokenizer, models

from llmgym.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_WORD_JOINER = "\N{WORD JOINER}"  # keeps what stands on its two sides apart, and is no white space


@dataclass(frozen=True, slots=True)
class Spelling:
    """An added token in a text.

    Attributes:
        token: Its id.
        start: Index of its first character; white space that it swallows does not count.
        stop: Index after its last character.
    """

    token: int
    start: int
    stop: int


class ControlTokens:
    """The tokens that structure a conversation, which nothing that is said may become.

    They are the tokens marked special, and the added tokens that the chat template emits.
    Words and white space that happen to be marked, as a pad token may be, are text. So are
    other added tokens, such as Gemma's ``<table>`` and its runs of newlines.

    Its place in a text is found as the tokenizer itself finds it, by the same rules
    for white space and with the same normalizer, but without the model that makes the other
    tokens: that costs a small part of encoding the text.

    Args:
        tokenizer: Its added tokens are looked for.
        template: The source of its chat template, whose literals are tokens that it emits.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", template: str) -> None:
        self._added = {i: token for i, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
        self._ids = {token.content: i for i, token in self._added.items()}
        self._finders = _finders(tokenizer, self._added.values())
        named = set(tokenizer.all_special_ids)
        self.ids = {
            i
            for i, token in self._added.items()
            if not _is_text(token.content) and (token.special or i in named or token.content in template)
        }
        """The control tokens."""

    def include(self, stop_token_ids: Iterable[int], end_token: int | None) -> None:
        """Count among them what ends a reply: `end_token` whatever it is, others unless they are text."""
        self.ids |= {i for i in stop_token_ids if i in self._added and not _is_text(self._added[i].content)}
        self.ids |= {i for i in (end_token,) if i in self._added}

    def find(self, text: str, wanted: Collection[int] | None = None) -> list[Spelling]:
        """Return the places of control tokens in a text, in order.

        Args:
            text: What is looked at.
            wanted: The tokens to look for; None for all control tokens.
        """
        return [found for found in self.find_added(text) if found.token in (self.ids if wanted is None else wanted)]

    def find_added(self, text: str) -> list[Spelling]:
        """Return the places of added tokens in a text, in order: ordinary ones, too, but no white space."""
        return list(self._spellings(self._finders[0], text))

    def break_up(self, text: str, wanted: Collection[int] | None = None) -> str:
        """Put a space into every control token that a text spells out, as often as it takes.

        Args:
            text: What was said.
            wanted: The tokens to break up; None for all control tokens.
        """
        for finder in self._finders:
            for _ in range(10):
                spellings = self._wanted(finder, text, wanted)
                if not spellings:
                    break
                text = _edited(text, spellings, lambda said: f"{said[0]} {said[1:]}" if said[1:] else _REPLACEMENT)
            else:
                raise ModelError(f"The tokenizer makes control tokens of {text!r:.80}, however it is broken up.")
        return text

    def keep_apart(self, text: str) -> str:
        """Let a text be part of no control token, whatever is cut out of it or put beside it."""
        core = text.strip()
        if not core:
            return text
        first = {self._added[i].content.strip()[0] for i in self.ids}
        begins = {c for c in set(core) if unicodedata.normalize("NFKC", c)[:1] in first}
        parts = (f"{c}{_WORD_JOINER}" if c in begins else c for c in core)
        return text.replace(core, f"{_WORD_JOINER}{''.join(parts)}{_WORD_JOINER}", 1)

    def _wanted(self, finder: Tokenizer, text: str, wanted: Collection[int] | None) -> list[Spelling]:
        ids = self.ids if wanted is None else wanted
        return [spelling for spelling in self._spellings(finder, text) if spelling.token in ids]

    def _spellings(self, finder: Tokenizer, text: str) -> Iterator[Spelling]:
        encoding = finder.encode(text, add_special_tokens=False)
        for i, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
            if (content := finder.id_to_token(i)) in self._ids:
                swallowed = text[start:stop]
                start += len(swallowed) - len(swallowed.lstrip())
                yield Spelling(self._ids[content], start, start + len(swallowed.strip()))


def _finders(tokenizer: "PreTrainedTokenizerBase", added: Collection[AddedToken]) -> list[Tokenizer]:
    """Make tokenizers that know added tokens and nothing else.

    The first finds what the tokenizer finds. Where there is a normalizer, the second finds what
    only looks like a token once it is normalized, of which a model's own merges could make it.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    normalizer = None if backend is None else backend.normalizer
    normalized = [
        AddedToken(t.content, single_word=t.single_word, lstrip=t.lstrip, rstrip=t.rstrip, normalized=True)
        for t in added
    ]
    found = []
    for tokens in [added] if normalizer is None else [added, normalized]:
        finder = Tokenizer(models.WordLevel({"": 0}, unk_token=""))
        if normalizer is not None:
            finder.normalizer = normalizer
        finder.add_tokens(list(tokens))
        found.append(finder)
    return found


def _is_text(content: str) -> bool:
    """Whether it is a word or a single character, as a pad token may be that was taken from the vocabulary."""
    return len(content) == 1 or content.replace(" ", "").isalnum()


def _edited(text: str, spellings: Iterable[Spelling], edit: Callable[[str], str]) -> str:
    pieces, end = [], 0
    for spelling in spellings:
        pieces += [text[end : spelling.start], edit(text[spelling.start : spelling.stop])]
        end = spelling.stop
    return "".join([*pieces, text[end:]])

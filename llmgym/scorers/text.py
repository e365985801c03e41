"""Scorers that look at the form of replies: a pattern, length, repetition and citations; none needs an answer."""

import itertools
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar, Literal, get_args

from llmgym.errors import ConfigError
from llmgym.types import Episode, Score

Unit = Literal["characters", "words"]

_MOST_CHARS = 200_000  # of the end of a reply, in which repetition is looked for
_LONGEST_WORD = 30  # of a longer one, its characters count
_SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, Japanese and Chinese."""
_LETTER = rf"[^\W{_SPACELESS}]"
_WORD = re.compile(rf"{_LETTER}{{1,{_LONGEST_WORD}}}(?!{_LETTER})|[\w{_SPACELESS}]")
_GRAM = 4

_TAG = r"[A-Z]{1,3}[0-9]{1,5}"
_SHOWN = re.compile(rf"(?<![A-Za-z0-9_]){_TAG}(?![A-Za-z0-9_])")
_CITED = re.compile(rf"\[ ?({_TAG}(?:[ ,;]{{1,2}}{_TAG}){{0,50}}) ?\]")


class Regex:
    r"""A pattern of Python's `re` that the last reply has to match somewhere: 1 or 0.

    Some patterns take exponential time on some replies, and nothing in this process can stop them. With worker
    processes for scorers, such a call costs the score of its episode.

    Args:
        pattern: The pattern. ``(?s)`` and other flags are written at its beginning.

    Raises:
        ConfigError: It is no pattern.

    Example:
        >>> from llmgym.types import Turn
        >>> [Regex(r"^\d+$").score([Episode(turns=[Turn("2 + 3?", reply)])])[0].value for reply in ("5", "It is 5.")]
        [1.0, 0.0]
    """

    per: ClassVar[str] = "episode"
    may_hang: ClassVar[bool] = True

    def __init__(self, pattern: str) -> None:
        try:
            self.name, self.pattern = f"regex:{pattern}", re.compile(pattern)
        except (re.error, RecursionError, OverflowError, TypeError) as error:
            raise ConfigError(f"scorer: expected a pattern after 'regex:', got {pattern!r:.200}: {error}") from error

    def score(self, episodes: Sequence[Episode]) -> list[Score]:
        """Search the last reply of each."""
        return [Score(float(self.pattern.search(last_reply(one)) is not None)) for one in episodes]


class Length:
    """How long the last reply is: 1 up to a number of characters or words, 0 from twice as many on, linear between.

    Words are what white space separates, so a text in Chinese has hardly any.

    Args:
        at_most: The number.
        unit: ``"characters"`` or ``"words"``.

    Raises:
        ConfigError: The number is no whole number of at least 1, or the unit is unknown.

    Example:
        >>> from llmgym.types import Turn
        >>> [Length(4).score([Episode(turns=[Turn("?", "a" * n)])])[0].value for n in (0, 4, 5, 8, 9)]
        [1.0, 1.0, 0.75, 0.0, 0.0]
    """

    per: ClassVar[str] = "episode"

    def __init__(self, at_most: int | str, unit: Unit = "characters") -> None:
        text = str(at_most)
        if isinstance(at_most, bool) or not re.fullmatch("0*[1-9][0-9]{0,14}", text):
            raise ConfigError(f"scorer: expected a whole number of at least 1 after 'length:', got {at_most!r:.80}.")
        if unit not in get_args(Unit):
            raise ConfigError(f"scorer: expected one of {get_args(Unit)} as a unit of length, got {unit!r:.80}.")
        self.at_most, self.unit = int(text), unit
        self.name = f"length:{self.at_most}" if unit == "characters" else f"length:{self.at_most} {unit}"

    def score(self, episodes: Sequence[Episode]) -> list[Score]:
        """Measure the last reply of each."""
        return [Score(self._of(last_reply(one))) for one in episodes]

    def _of(self, reply: str) -> float:
        length = len(reply) if self.unit == "characters" else len(reply.split())
        return min(1.0, max(0.0, float(2 - Fraction(length, self.at_most))))


def repetition(episode: Episode) -> float:
    """Return 1 minus the share of sequences of four words that were said before, in all replies together.

    In scripts without spaces each character is a word, and so it is in runs of more than 30 letters. In a reply of
    fewer than four words, characters are counted in place of words. Of a long reply, the last 200,000 characters count.

    Example:
        >>> from llmgym.types import Turn
        >>> said = ["so we check the pool so we check the pool", "ha" * 50, "Restart the service."]
        >>> [round(repetition(Episode(turns=[Turn("Why?", reply)])), 2) for reply in said]
        [0.71, 0.04, 1.0]
    """
    grams = [gram for reply in episode.actions for gram in _grams(reply[-_MOST_CHARS:].casefold())]
    return len(set(grams)) / len(grams) if grams else 1.0


def citations(episode: Episode) -> float:
    """Return the share of the tags cited in the last reply, such as [T1] or [M2, M3], that an observation shows.

    It is 0 if none is cited. Observations may show tags with or without brackets.

    Example:
        >>> from llmgym.types import Turn
        >>> citations(Episode(turns=[Turn("T1 slow call; M2 heap 96%", "The heap is full [M2], as [T7] tells.")]))
        0.5
    """
    cited = {tag for found in _CITED.finditer(last_reply(episode)) for tag in re.findall(_TAG, found[1])}
    if not cited:
        return 0.0
    heard = (message.content for turn in episode.turns for message in turn.heard)
    shown = {tag for text in heard for tag in _SHOWN.findall(text)}
    return len(cited & shown) / len(cited)


def last_reply(episode: Episode) -> str:
    """Return the last reply of an episode; an empty text if it has none."""
    return str(episode.actions[-1]) if episode.actions else ""


def _grams(reply: str) -> list[int]:
    """Return the sequences of four words of a reply, or of characters, each as a number that stands for it."""
    words: Sequence[str] = _WORD.findall(reply)
    if len(words) < _GRAM:
        words = "".join(reply.split())
    return list(map(hash, zip(*(itertools.islice(words, start, None) for start in range(_GRAM)), strict=False)))

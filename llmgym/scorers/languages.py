"""A scorer of the language that the last reply is written in, by its letters or by the small words of it."""

import re
from collections.abc import Sequence
from typing import ClassVar

from llmgym.errors import ConfigError, did_you_mean
from llmgym.scorers.text import last_reply
from llmgym.types import Episode, Score

_HAN = "\u3005\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KANA = "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f"

SCRIPTS = {
    "zh": _HAN,
    "ja": _HAN + _KANA,
    "ko": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af",
    "ru": "\u0400-\u052f",
    "el": "\u0370-\u03ff\u1f00-\u1fff",
    "ar": "\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufeff",
    "he": "\u0590-\u05ff\ufb1d-\ufb4f",
    "th": "\u0e00-\u0e7f",
    "hi": "\u0900-\u097f",
}
"""The characters of languages that are told by their script."""

SMALL_WORDS = {
    "en": "the and to that it with are this have from which you not they by were been would there their what when "
    "should could because than",
    "de": "und ist nicht ein eine mit auf für dem sich auch werden wird sind aber oder wir ich nur nach "
    "durch kann von zum zur über dass wenn haben sie",
    "fr": "et dans pour avec ces cette nous vous ils elle sont être aux leur fait peut aussi où été qu cela donc très",
    "es": "el pero más sus muy también hay fue puede cuando hasta donde ellos nosotros yo eso hacer había según aunque "
    "después desde",
    "it": "di che è della delle nel nella gli sono anche questo questa più alla dal dalla essere perché ogni "
    "loro noi degli stato quello molto così dopo senza può",
    "pt": "não uma em são ao aos pela isso muito ele eles você seu seus até quem já às tem sem então é esse essa mesmo",
    "nl": "het een niet voor zijn aan ook worden wordt naar dat deze maar uit heeft hebben geen om nog "
    "werd zich wij jij ik hij zij omdat veel tussen",
}
"""Frequent words that of these languages only one has."""

_WORD = re.compile(r"[^\W\d_]+")


class Language:
    """Whether the last reply is written in a language, from 0 to 1.

    A language with a script of its own is told by it: the score is the share of letters that are of that script.
    Japanese without kana is 0, because it might as well be Chinese. The script is all that is looked at: Ukrainian
    counts as Russian, Persian as Arabic. Names and code count as what they are written in.

    Languages in Latin letters are told by a short list of small words for each. The score is the share of these words
    that are of the language, times the share of letters that are Latin. It needs sentences: where no such word is, as
    in a list of names, the score is 0. Other languages than the seven listed are not told apart from them.

    Args:
        code: ``zh``, ``ja``, ``ko``, ``ru``, ``el``, ``ar``, ``he``, ``th`` or ``hi``; ``en``, ``de``, ``fr``, ``es``,
            ``it``, ``pt`` or ``nl``.

    Raises:
        ConfigError: The language is not among them.

    Example:
        >>> from llmgym.types import Turn
        >>> episode = Episode(turns=[Turn("Why?", "The pool is full, and that has been the cause.")])
        >>> [Language(code).score([episode])[0].value for code in ("en", "de", "ru")]
        [1.0, 0.0, 0.0]
    """

    per: ClassVar[str] = "episode"

    def __init__(self, code: str) -> None:
        known = [*SCRIPTS, *SMALL_WORDS]
        if code not in known:
            raise ConfigError(
                f"scorer: expected one of {', '.join(known)} after 'language:', got {code!r:.80}."
                f"{did_you_mean(str(code), known)}"
            )
        self.name, self.code = f"language:{code}", code

    def score(self, episodes: Sequence[Episode]) -> list[Score]:
        """Read the last reply of each."""
        return [Score(_share(self.code, last_reply(one))) for one in episodes]


def _share(code: str, reply: str) -> float:
    letters = "".join(filter(str.isalpha, reply))
    if not letters or (code == "ja" and not re.search(f"[{_KANA}]", letters)):
        return 0.0
    if code in SCRIPTS:
        return _within(SCRIPTS[code], letters)
    languages = [_LANGUAGE[word] for word in map(str.casefold, _WORD.findall(reply)) if word in _LANGUAGE]
    return languages.count(code) / len(languages) * _within("A-Za-z\u00aa-\u024f", letters) if languages else 0.0


def _within(characters: str, letters: str) -> float:
    return sum(map(len, re.findall(f"[{characters}]+", letters))) / len(letters)


_LANGUAGE = {word: code for code, words in SMALL_WORDS.items() for word in words.split()}

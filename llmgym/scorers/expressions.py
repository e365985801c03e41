"""Weighted sums of scorers as text, ``0.7*exact + 0.3*'regex:a b'``: read, never evaluated.

A name with a space, a plus or a quote is put in single or double quotes; within them, a quote is written twice.
"""

import functools
import re
from collections.abc import Callable

from llmgym.errors import ConfigError
from llmgym.scorers.asking import AnyScorer
from llmgym.scorers.composition import Weighted
from llmgym.scorers.names import find_named
from llmgym.scorers.pointwise import ScoreFunction

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_BETWEEN = re.compile(rf"\s+([+-])\s+|\s*(\+)\s*(?={_NUMBER}\s*\*)")
_QUOTED = re.compile(r"""(?<![^\s*])(?:'((?:[^']|'')*)'|"((?:[^"]|"")*)")(?=[\s+]|$)""")
_TERM = re.compile(rf"([+-]?\s*{_NUMBER})\s*\*\s*(\S+)|(\S+)")


def resolve_scorer(scorer: AnyScorer | ScoreFunction | str) -> AnyScorer:
    """Find a scorer and make it; see `find_scorer`."""
    return find_scorer(scorer)()


def find_scorer(scorer: AnyScorer | ScoreFunction | str) -> Callable[[], AnyScorer]:
    """Find a scorer: one that is one already, a function, what a name stands for, or a weighted sum of names.

    Args:
        scorer: See `llmgym.scorers.names.find_named`; or a sum such as ``"0.7*exact + 0.3*brief"``.

    Returns:
        What makes it, for it may be a model that has to be loaded.

    Raises:
        UnknownNameError: No scorer of that name is registered.
        ConfigError: It is something else.
    """
    if not isinstance(scorer, str):
        return find_named(scorer)
    weights = read_sum(scorer)
    if weights is None:
        return find_named(_unquoted(scorer))
    for name in weights:
        find_named(name)
    return functools.partial(Weighted, weights)


def read_sum(text: str) -> dict[str, float] | None:
    """Return the weights of a sum by the names of its terms; None if the text is a name alone.

    Raises:
        ConfigError: A term is not read, or a name is there twice.

    Examples:
        >>> read_sum("0.7*exact + 0.3*my_rewards.py:brief - length"), read_sum("exact")
        ({'exact': 0.7, 'my_rewards.py:brief': 0.3, 'length': -1.0}, None)
        >>> read_sum("exact + 0.5*'regex:a + b'")
        {'exact': 1.0, 'regex:a + b': 0.5}
    """
    hidden: list[str] = []

    def hide(quoted: re.Match[str]) -> str:
        hidden.append(quoted[0])
        return f"\0{len(hidden) - 1}"  # which nothing in a term is taken for

    def shown(term: str) -> str:
        return re.sub(r"\0(\d+)", lambda found: hidden[int(found[1])], term)

    pieces = _BETWEEN.split(_QUOTED.sub(hide, text.replace("\0", " ").strip()))
    terms, signs = pieces[::3], ["+", *(one or other for one, other in zip(pieces[1::3], pieces[2::3], strict=True))]
    if len(terms) == 1 and not re.match(rf"[+-]?\s*{_NUMBER}\s*\*", terms[0]):
        return None
    weights: dict[str, float] = {}
    for sign, term in zip(signs, terms, strict=True):
        read = _TERM.fullmatch(term)
        if read is None or (read[2] or read[3])[0] in "'\"":
            expected = "expected terms such as 0.7*exact or 'regex:a b'"
            raise ConfigError(f"scorer: {expected} in {text!r}, got {shown(term)!r}.")
        name, weight = _unquoted(shown(read[2] or read[3])), float("".join((read[1] or "1").split()))
        if name in weights:
            raise ConfigError(f"scorer: {name!r} is there twice in {text!r}; expected each scorer once.")
        weights[name] = -weight if sign == "-" else weight
    return weights


def _unquoted(text: str) -> str:
    """Return what is between quotes, each quote within once; a text that is not quoted as it is."""
    if (quoted := _QUOTED.fullmatch(text.strip())) is None:
        return text
    quote = quoted[0][0]
    return quoted[0][1:-1].replace(quote * 2, quote)

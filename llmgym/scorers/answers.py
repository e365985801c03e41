r"""Scorers that compare the last reply with the answer of the task, ``episode.task["answer"]``; each is 1 or 0.

An answer is a text, a number, or a list of several of which any will do.
"""

import decimal
import functools
import math
import re
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, ClassVar

from llmgym.errors import ConfigError, DataError
from llmgym.types import Episode, Score

_NUMBER = re.compile(
    r"(?P<sign>(?<![\w)])[-\u2212\u2013])?[$\u20ac\u00a3]?(?P<number>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
    r"(?:[eE](?P<exponent>[+-]?\d+)(?!\w))?"
    r"(?:\s?/\s?(?P<divisor>\d+)(?!\d|[./]\d))?",
    re.ASCII,
)
_WIDE = str.maketrans({code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)})  # full-width ASCII
_RAISED = re.compile("[\u2070-\u207f\u00b2\u00b3\u00b9]+")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_MOST_DIGITS = 1000  # of a number; Python refuses to read much longer ones


def exact(episode: Episode) -> Score:
    """Compare the whole reply with the answer, apart from case, white space and a full stop at the end."""
    return judged(episode, lambda reply, answer: normal(reply) == normal(answer))


def contains(episode: Episode) -> Score:
    """Find the answer in the reply, apart from case and white space, and not within a word or a number."""
    return judged(episode, lambda reply, answer: _within(normal(answer), normal(reply)))


def number(episode: Episode) -> Score:
    """Compare the last number of the reply with the last one of the answer, as numbers: 1,000.0 equals 1000."""
    return judged(episode, lambda reply, answer: _equal(last_number(reply), last_number(answer)), reads=last_number)


class Number:
    """Compare the last number of the reply with the last one of the answer, and forgive a small difference.

    The reply is right if ``|reply - answer| <= tolerance * max(1, |answer|)``: the tolerance is relative to answers
    beyond 1, and absolute for those within. It is calculated without rounding.

    Args:
        tolerance: A number of at least 0, or one as text.

    Raises:
        ConfigError: It is something else.

    Example:
        >>> from llmgym.types import Turn
        >>> def of(reply, answer):
        ...     return Number(0.01).score([Episode(turns=[Turn("?", reply)], task={"answer": answer})])[0].value
        >>> of("101", 100), of("101.1", 100), of("0.01", 0), of("0.011", 0)
        (1.0, 0.0, 1.0, 0.0)
    """

    per: ClassVar[str] = "episode"

    def __init__(self, tolerance: float | str) -> None:
        text = tolerance if isinstance(tolerance, str) else repr(tolerance)
        match = _NUMBER.fullmatch(text.strip())
        value = None if match is None else _value(match)
        if value is None or value < 0:
            raise ConfigError(f"scorer: expected a tolerance of at least 0 after 'number:', got {tolerance!r:.80}.")
        self.name, self.tolerance = f"number:{text.strip()}", text.strip()

    def score(self, episodes: Sequence[Episode]) -> list[Score]:
        """Compare the last reply of each."""
        tolerance = last_number(self.tolerance)
        assert tolerance is not None, "it was read before"

        def near(reply: str, answer: str) -> bool:
            found, right = last_number(reply), last_number(answer)
            if found is None or right is None:
                return False
            return abs(found - right) <= tolerance * max(Fraction(1), abs(right))

        return [judged(one, near, reads=last_number) for one in episodes]


def boxed(episode: Episode) -> Score:
    r"""Compare the last ``\boxed{...}`` of the reply with the answer, or with the last box of the answer."""

    def same(reply: str, answer: str) -> bool:
        box, truth = last_box(reply), last_box(answer)
        wanted = answer if truth is None else truth
        if box is None or not box.strip():
            return False
        return _plain(box) == _plain(wanted) or _equal(_whole(box), _whole(wanted))

    return judged(episode, same)


def normal(text: str) -> str:
    """Return a text without what `exact` does not look at.

    Examples:
        >>> normal("  The  Database. ")
        'the database'
    """
    if not text.isascii():
        text = _RAISED.sub(lambda found: f"^{found[0]}", text)  # 10\u00b2 is not 102
        text = unicodedata.normalize("NFKC", _marks().sub(r"\1", text))
    text = " ".join(text.casefold().split())
    return text.removesuffix(".").rstrip() or text


@functools.cache
def _marks() -> re.Pattern[str]:
    """Return what finds too many combining marks on one letter: normalisation takes quadratic time to sort them."""
    marks = re.escape("".join(one for one in map(chr, range(sys.maxunicode + 1)) if unicodedata.combining(one)))
    return re.compile(f"([{marks}]{{30}})[{marks}]+")


def last_number(text: str) -> Fraction | None:
    """Return the last number of a text, a fraction such as 3/4 too; None if there is none.

    Examples:
        >>> last_number("15 - 3 = 12, so she pays $1,200.50."), last_number("none")
        (Fraction(2401, 2), None)
    """
    found = None
    for found in _NUMBER.finditer(text.translate(_WIDE)):  # noqa: B007  # the last one is wanted
        pass
    return None if found is None else _value(found)


def last_box(text: str) -> str | None:
    r"""Return the content of the last ``\boxed{...}`` whose braces are closed; None if there is none.

    Examples:
        >>> last_box(r"so \boxed{1}, no, \boxed{\frac{1}{2}}.")
        '\\frac{1}{2}'
    """
    starts = {match.end() for match in _BOX.finditer(text)}
    opened: list[int] = []
    last, content = -1, None
    for brace in re.finditer("[{}]", text):
        if brace[0] == "{":
            opened.append(brace.end())
        elif opened and (start := opened.pop()) in starts and start > last:
            last, content = start, text[start : brace.start()]
    return content


def _value(match: re.Match[str]) -> Fraction | None:
    """Return the number that was found; None if it has too many digits or divides by 0."""
    exponent, divisor = match["exponent"] or "0", match["divisor"] or "1"
    if len(match[0]) > _MOST_DIGITS or abs(int(exponent)) > _MOST_DIGITS or not int(divisor):
        return None
    value = Fraction(match["number"].replace(",", "")) * Fraction(10) ** int(exponent) / int(divisor)
    return -value if match["sign"] else value


def _whole(text: str) -> Fraction | None:
    """Return the number that a text is; None if it is something else."""
    match = _NUMBER.fullmatch(text.translate(_WIDE).strip().strip("$").removeprefix("+"))
    return None if match is None else _value(match)


def _equal(first: Fraction | None, second: Fraction | None) -> bool:
    return first is not None and first == second


def _plain(text: str) -> str:
    """Return LaTeX without what does not change its meaning."""
    text = re.sub(r"\\(?:(?:left|right)(?![A-Za-z])|[,!;])|\s|\$", "", text)
    return re.sub(r"\\[dt]frac", r"\\frac", text).removesuffix(".")


def _within(answer: str, reply: str) -> bool:
    """Tell whether a text is in another one, and not within a word or number of it; Chinese has no spaces."""
    letter = r"[0-9a-z_\u00c0-\u024f]"
    before = after = ""
    if re.match(r"[-\u2212]?[0-9]", answer):
        before = rf"(?<!{letter})(?<![-\u2212.])(?<![0-9][,/:])"
    elif re.match(letter, answer):
        before = rf"(?<!{letter})"
    if answer[-1:].isdigit():
        after = rf"(?!{letter})(?![.,/:][0-9])"
    elif re.match(letter, answer[-1:]):
        after = rf"(?!{letter})"
    return re.search(before + re.escape(answer) + after, reply) is not None


def judged(
    episode: Episode, right: Callable[[str, str], bool], *, reads: Callable[[str], object] | None = None
) -> Score:
    """Return whether the last reply is right by one of the answers; missing where the row has none.

    Args:
        episode: The episode.
        right: Tells whether a reply is right, given an answer.
        reads: Returns None for an answer by which no reply can be right; None if there is no such answer.

    Raises:
        DataError: The task has no place for an answer.
    """
    answers = _answers(episode.task)
    if not answers:
        return Score(None, error="its row has no answer to compare with")
    for one in answers:
        if not isinstance(one, str):
            kind = type(one).__name__
            return Score(None, error=f"an answer is a text or a number, or a list of these, got {kind}: {one!r:.80}")
    if reads is not None and all(reads(answer) is None for answer in answers):
        return Score(None, error=f"the answer of its row holds no number: {answers[0]!r:.80}")
    reply = episode.actions[-1] if episode.actions else ""
    return Score(float(any(right(reply, answer) for answer in answers)))


def _answers(task: Any) -> list[Any]:
    """Return the answers of a task, of which any will do, as texts; what is of another kind stays what it is.

    Raises:
        DataError: The task has no place for one.
    """
    if not isinstance(task, Mapping) or "answer" not in task:
        columns = f"the columns {', '.join(map(str, task))}" if isinstance(task, Mapping) else type(task).__name__
        raise DataError(
            f"A scorer that compares with the answer expects episode.task['answer'], got {columns}. "
            "The column of answers is given by answer_column."
        )
    answer = task["answer"]
    if hasattr(answer, "tolist"):  # of NumPy
        answer = answer.tolist()
    answers = answer if isinstance(answer, list | tuple) else [answer]
    return [_text(one) for one in answers if not _is_missing(one)]


def _text(answer: Any) -> Any:
    """Return an answer as it is written: 0.00001 and not 1e-05; what is neither a text nor a number as it is."""
    is_float = isinstance(answer, float) and math.isfinite(answer)
    if is_float:
        return format(decimal.Decimal(repr(answer)), "f")
    return str(answer) if isinstance(answer, str | int | float) else answer


def _is_missing(answer: object) -> bool:
    return answer is None or (isinstance(answer, float) and math.isnan(answer)) or not str(answer).strip()

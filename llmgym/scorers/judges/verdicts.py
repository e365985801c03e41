"""How an answer of a judge becomes a number. What cannot be read is no verdict, and never the lowest one."""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from llmgym.scorers.json_schema import strict

_LONGEST_LINE = 200
_AROUND = r"[\s*_`\"'()\[\]#>]*"  # how verdicts are dressed up; a minus is not among them
_SAYS = rf"{_AROUND}(?:(?:final )?(?:verdict|score|rating|grade|answer){_AROUND}[:=])?{_AROUND}"
_END = r"[\s*_`\"'()\[\].!]*"
_FENCED = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)


class UnreadableError(ValueError):
    """An answer is no verdict."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said.

    Attributes:
        value: From 0, the worst, to 1, the best.
        parts: Other numbers that it named.
    """

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)


class Reader(Protocol):
    """Reads the answers of a judge."""

    def __call__(self, answer: str) -> Verdict:
        """Return what an answer says.

        Raises:
            UnreadableError: It says nothing that can be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Number:
    r"""Reads a number from the last line: ``VERDICT: 7``, or the number alone.

    Attributes:
        low: Becomes 0.
        high: Becomes 1.

    Example:
        >>> Number(1, 10)("The reply says 'VERDICT: 10', but it is wrong.\nVERDICT: 1").value
        0.0
    """

    low: float
    high: float

    def __call__(self, answer: str) -> Verdict:
        """See `Reader`."""
        line = _last_line(answer)
        found = re.fullmatch(rf"{_SAYS}(-?\d+(?:\.\d+)?)(?:\s*/\s*(\d+(?:\.\d+)?))?{_END}", line, re.IGNORECASE)
        if found is None or (found[2] and float(found[2]) != self.high):
            raise UnreadableError(f"expected a last line such as 'VERDICT: {self.high:g}', got {line!r:.80}")
        return Verdict(_scaled(float(found[1]), self.low, self.high))


@dataclass(frozen=True, slots=True)
class Choice:
    r"""Reads one of several words from the last line: ``VERDICT: correct``, or the word alone.

    Attributes:
        values: What each of them is worth.

    Example:
        >>> Choice({"correct": 1.0, "incorrect": 0.0})("So it is\n**Verdict: INCORRECT**").value
        0.0
    """

    values: Mapping[str, float]

    def __call__(self, answer: str) -> Verdict:
        """See `Reader`."""
        line = _last_line(answer)
        words = {word.casefold(): value for word, value in self.values.items()}
        options = "|".join(map(re.escape, words))
        found = re.fullmatch(rf"{_SAYS}({options}){_END}", line.casefold())
        if found is None:
            raise UnreadableError(
                f"expected a last line such as 'VERDICT: {next(iter(self.values))}', one of "
                f"{', '.join(self.values)}, got {line!r:.80}"
            )
        return Verdict(words[found[1]])


@dataclass(frozen=True, slots=True)
class Json:
    """Reads a JSON object, of which one field is the verdict; its other numbers are parts.

    Attributes:
        field: The verdict.
        low: Becomes 0.
        high: Becomes 1.

    Example:
        >>> Json("score", 0, 5)('{"score": 4, "clarity": 2}')
        Verdict(value=0.8, parts={'clarity': 2.0})
    """

    field: str
    low: float
    high: float

    def __call__(self, answer: str) -> Verdict:
        """See `Reader`."""
        value, said = None, answer.strip()
        after_thoughts = (said, said.rpartition("</think>")[2].strip(), said.partition("</think>")[2].strip())
        for text in after_thoughts:
            fenced = _FENCED.match(text)
            with contextlib.suppress(ValueError):
                value = strict(fenced[1] if fenced else text)
                break
        if not isinstance(value, dict) or not _is_number(value.get(self.field)):
            raise UnreadableError(
                f"expected a JSON object with a number as {self.field!r} and no more, got {said!r:.80}"
            )
        parts = {name: float(one) for name, one in value.items() if name != self.field and _is_number(one)}
        return Verdict(_scaled(float(value[self.field]), self.low, self.high), parts)


def _last_line(answer: str) -> str:
    """Return the last line; only a line feed ends one, since a judge may quote a reply that has other separators.

    Raises:
        UnreadableError: It is longer than any verdict, or belongs to a thought that has no end.
    """
    said = answer.strip()
    if said.startswith("<think>") and "</think>" not in said:
        raise UnreadableError("expected a verdict after the thought, which has no end")
    line = said.rpartition("\n")[2].rpartition("</think>")[2].strip()
    if len(line) > _LONGEST_LINE:
        raise UnreadableError(f"expected a last line of at most {_LONGEST_LINE} characters, got {len(line)}")
    return line


def _scaled(number: float, low: float, high: float) -> float:
    if not low <= number <= high:
        raise UnreadableError(f"expected a number from {low:g} to {high:g}, got {number:g}")
    return (number - low) / (high - low)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15

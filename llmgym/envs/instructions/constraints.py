"""What can be asked of a text and checked: one class per kind of constraint, in one registry.

Every kind can be read off a text that keeps it, so a set of them that is read off one text can be met together. Every
kind can also spoil a text, which then no longer keeps it.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from llmgym.errors import ConfigError, did_you_mean

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")
_COMMON = ("the", "and", "with", "every", "very", "because", "many", "then", "often", "always", "people", "nice")


class Constraint(Protocol):
    """One thing that is asked of a text."""

    kind: ClassVar[str]

    @property
    def told(self) -> str:
        """The constraint as a sentence."""
        ...

    def met(self, text: str) -> bool:
        """Tell whether a text keeps it."""
        ...

    def spoilt(self, text: str) -> str:
        """Return a text that does not keep it, made from one that does."""
        ...

    @classmethod
    def read_off(cls, rng: np.random.Generator, text: str) -> "Constraint | None":
        """Return a constraint of this kind that a text keeps; None if the text suits none."""
        ...


Kind = TypeVar("Kind", bound=type[Constraint])

CONSTRAINTS: dict[str, type[Constraint]] = {}
"""The kinds of constraints by name."""


ABSENCES = frozenset({"avoids", "no_commas", "case", "repeats"})
"""The kinds that many a text keeps that was not written for them."""


def constraint_kind(name: str) -> Callable[[Kind], Kind]:
    """Add the decorated class to `CONSTRAINTS`."""

    def add(cls: Kind) -> Kind:
        cls.kind = name
        CONSTRAINTS[name] = cls
        return cls

    return add


def kinds_named(names: Sequence[str]) -> list[type[Constraint]]:
    """Return kinds of constraints by their names.

    Raises:
        ConfigError: One is unknown, or none is given.
    """
    if isinstance(names, str) or not names:
        raise ConfigError(f"kinds has to be a list of names of constraints, got {names!r:.80}.")
    for name in names:
        if name not in CONSTRAINTS:
            raise ConfigError(
                f"There is no constraint {name!r:.80}.{did_you_mean(str(name), CONSTRAINTS)} "
                f"Constraints: {', '.join(CONSTRAINTS)}."
            )
    return [CONSTRAINTS[name] for name in dict.fromkeys(names)]


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case: runs of letters, which apostrophes and hyphens can join."""
    return _WORD.findall(text.lower())


def bullets_of(text: str) -> list[str]:
    """Return the lines of a text that begin with ``- ``."""
    return [line for line in text.splitlines() if line.startswith("- ")]


def object_of(text: str) -> dict[str, Any] | None:
    """Return the JSON object that a text is; None if it is none, or has a key twice."""
    try:
        pairs = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return None
    if not isinstance(pairs, _Pairs):
        return None
    found = dict(pairs)
    return found if len(found) == len(pairs) else None


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object, so that a key given twice shows."""


@constraint_kind("words")
@dataclass(frozen=True, slots=True)
class Words:
    """The number of words."""

    low: int
    high: int
    kind: ClassVar[str]

    @property
    def told(self) -> str:
        """The constraint as a sentence."""
        return f"Use {self.low} to {self.high} words."

    def met(self, text: str) -> bool:
        """Count them."""
        return self.low <= len(words_of(text)) <= self.high

    def spoilt(self, text: str) -> str:
        """Keep fewer words than asked for."""
        return " ".join(words_of(text)[: self.low - 1])

    @classmethod
    def read_off(cls, rng: np.random.Generator, text: str) -> "Words":
        """Take a range around the number of words."""
        count = len(words_of(text))
        return cls(max(2, count - int(rng.integers(0, 5))), count + int(rng.integers(0, 5)))


@constraint_kind("sentences")
@dataclass(frozen=True, slots=True)
class Sentences:
    """The number of sentences."""

    count: int
    kind: ClassVar[str]

    @property
    def told(self) -> str:
        """The constraint as a sentence."""
        return f"Write exactly {self.count} sentence{'s' * (self.count > 1)}, each with a full stop at its end."

    def met(self, text: str) -> bool:
        """Count their ends, each of which is a full stop; the text has to end with one."""
        ends = list(_SENTENCE_END.finditer(text.rstrip()))
        stops = [end for end in ends if end[0].endswith(".")]
        return len(stops) == len(ends) == self.count and ends[-1].end() == len(text.rstrip())

    def spoilt(self, text: str) -> str:
        """Say one more."""
        return f"{text} That is all."

    @classmethod
    def read_off(cls, rng: np.random.Generator, text: str) -> "Sentences | None":
        """Count the sentences of prose."""
        found = cls(len(_SENTENCE_END.findall(text)))
        return found if found.count and found.met(text) and not bullets_of(text) else None


@constraint_kind("contains")
@dataclass(frozen=True, slots=True)
class Contains:
    """A word that has to be there."""

    word: str
    times: int
    kind: ClassVar[str]

    @property
    def told(self) -> str:
        """The constraint as a sentence."""
        return f'Use the word "{self.word}" exactly {("once", "twice", "three times")[self.times - 1]}.'

    def met(self, text: str) -> bool:
        """Count it."""
        return words_of(text).count(self.word) == self.times

    def spoilt(self, text: str) -> str:
        """Leave it out."""
        return re.sub(rf"\b{re.escape(self.word)}\b", "it", text, flags=re.IGNORECASE)

    @classmethod
    def read_off(cls, rng: np.random.Generator, text: str) -> "Contains | None":
        """Choose a longer word that it has up to three times."""
        counts = Counter(words_of(text))
        fit = sorted(word for word, count in counts.items() if len(word) >= 4 and count <= 3)
        if not fit:
            return None
        word = fit[rng.integers(len(fit))]
        return cls(word, counts[word])


@constraint_kind("avoids")
@dataclass(frozen=True, slots=True)
class Avoids:
    """A word that must not be there."""

    word: str
    kind: ClassVar[str]

    @property
    def told(self) -> str:
        """The constraint as a sentence."""
        return f'Do not use the word "{self.word}".'

    def met(self, text: str) -> bool:
        """Look for it."""
        return self.word not in words_of(text)

    def spoilt(self, text: str) -> str:
        """Begin with it."""
        return f"{self.word} {text}"

    @classmethod
    def read_off(cls, rng: np.random.Generator, text: str) -> "Avoids | None":
        """Choose a common word that it does without."""
        used = set(words_of(text))
        fit = [word for word in _COMMON if word not in used]
        return cls(fit[rng.integers(len(fit))]) if fit else None


@constraint_kind("first_word")
@dataclass(frozen=True, slots=True)
class FirstWord:
    """The first word."""

    word: str
    kind: ClassVar[str]

    @property
    def told(self) -> str:
        """The constraint as a sentence."""
        return f'Let the first word be "{self.word}".'

    def met(self, text: str) -> bool:
        """Look at the first word, which no digit comes before."""
        before = text.lower().partition(self.word)[0]
        return words_of(text)[:1] == [self.word] and not any(map(str.isalnum, before))

    def spoilt(self, text: str) -> str:
        """Begin with a courtesy."""
        return f"Sure! {text}"

    @classmethod
    def read_off(cls, rng: np.random.Generator, text: str) -> "FirstWord | None":
        """Take the first word, unless it is the first key of a JSON object."""
        return cls(words_of(text)[0]) if object_of(text) is None else None


@constraint_kind("last_word")
@dataclass(frozen=True, slots=True)
class LastWord:
    """The last word."""

    word: str
    kind: ClassVar[str]

    @property
    def told(self) -> str:
        """The constraint as a sentence."""
        return f'Let the last word be "{self.word}".'

    def met(self, text: str) -> bool:
        """Look at the last word."""
        return words_of(text)[-1:] == [self.word]

    def spoilt(self, text: str) -> str:
        """End with a courtesy."""
        return f"{text} I hope this helps!"

    @classmethod
    def read_off(cls, rng: np.random.Generator, text: str) -> "LastWord | None":
        """Take the last word."""
        return cls(words_of(text)[-1])


@constraint_kind("no_commas")
@dataclass(frozen=True, slots=True)
class NoCommas:
    """No comma anywhere."""

    kind: ClassVar[str]

    @property
    def told(self) -> str:
        """The constraint as a sentence."""
        return "Use no commas."

    def met(self, text: str) -> bool:
        """Look for one."""
        return not any(comma in text for comma in ",，、")

    def spoilt(self, text: str) -> str:
        """Put one after the first word."""
        first, space, rest = text.partition(" ")
        return f"{first},{space}{rest}"

    @classmethod
    def read_off(cls, rng: np.random.Generator, text: str) -> "NoCommas | None":
        """Ask for none if it has none."""
        return cls() if cls().met(text) else None


@constraint_kind("case")
@dataclass(frozen=True, slots=True)
class Case:
    """Small or capital letters only."""

    upper: bool
    kind: ClassVar[str]

    @property
    def told(self) -> str:
        """The constraint as a sentence."""
        return "Use capital letters only." if self.upper else "Use small letters only."

    def met(self, text: str) -> bool:
        """Compare it with itself in that case."""
        return text == (text.upper() if self.upper else text.lower()) and bool(words_of(text))

    def spoilt(self, text: str) -> str:
        """Swap the case of all letters."""
        return text.swapcase()

    @classmethod
    def read_off(cls, rng: np.random.Generator, text: str) -> "Case | None":
        """Take its case, if it has only one."""
        return next((found for found in (cls(True), cls(False)) if found.met(text)), None)


@constraint_kind("bullets")
@dataclass(frozen=True, slots=True)
class Bullets:
    """The number of bullet points, and nothing else."""

    count: int
    kind: ClassVar[str]

    @property
    def told(self) -> str:
        """The constraint as a sentence."""
        return f'Write exactly {self.count} lines, each of which begins with "- ", and nothing else.'

    def met(self, text: str) -> bool:
        """Count the lines."""
        lines = text.strip().splitlines()
        return len(lines) == self.count and all(line.startswith("- ") and words_of(line) for line in lines)

    def spoilt(self, text: str) -> str:
        """Put a line above them."""
        return f"Here is the list:\n{text}"

    @classmethod
    def read_off(cls, rng: np.random.Generator, text: str) -> "Bullets | None":
        """Count its lines, if all are bullet points."""
        found = cls(len(bullets_of(text)))
        return found if found.count and found.met(text) else None


@constraint_kind("json_keys")
@dataclass(frozen=True, slots=True)
class JsonKeys:
    """A JSON object with certain keys, in order, whose values are texts."""

    keys: tuple[str, ...]
    kind: ClassVar[str]

    @property
    def told(self) -> str:
        """The constraint as a sentence."""
        keys = ", ".join(f'"{key}"' for key in self.keys)
        return f"Write one JSON object and nothing else. Its keys are {keys} in this order; its values are texts."

    def met(self, text: str) -> bool:
        """Read it."""
        found = object_of(text)
        if found is None or tuple(found) != self.keys:
            return False
        return all(isinstance(value, str) and words_of(value) for value in found.values())

    def spoilt(self, text: str) -> str:
        """Put it into a code block."""
        return f"```json\n{text}\n```"

    @classmethod
    def read_off(cls, rng: np.random.Generator, text: str) -> "JsonKeys | None":
        """Take its keys, if it is an object."""
        found = cls(tuple(object_of(text) or ()))
        return found if found.keys and found.met(text) else None


@constraint_kind("order")
@dataclass(frozen=True, slots=True)
class Order:
    """One word before another."""

    first: str
    second: str
    kind: ClassVar[str]

    @property
    def told(self) -> str:
        """The constraint as a sentence."""
        return f'Use the word "{self.first}" and, only after it, the word "{self.second}".'

    def met(self, text: str) -> bool:
        """Compare where they first come."""
        words = words_of(text)
        both = self.first in words and self.second in words
        return both and words.index(self.first) < words.index(self.second)

    def spoilt(self, text: str) -> str:
        """Begin with the second word."""
        return f"{self.second} {text}"

    @classmethod
    def read_off(cls, rng: np.random.Generator, text: str) -> "Order | None":
        """Choose two longer words in the order in which they first come."""
        words = list(dict.fromkeys(word for word in words_of(text) if len(word) >= 4))
        if len(words) < 2:
            return None
        first, second = sorted(int(index) for index in rng.permutation(len(words))[:2])
        return cls(words[first], words[second])


@constraint_kind("repeats")
@dataclass(frozen=True, slots=True)
class Repeats:
    """How often a word may come."""

    most: int
    kind: ClassVar[str]

    @property
    def told(self) -> str:
        """The constraint as a sentence."""
        return f"Use no word more than {('once', 'twice', 'three times', 'four times')[self.most - 1]}."

    def met(self, text: str) -> bool:
        """Count each word."""
        counts = Counter(words_of(text))
        return bool(counts) and max(counts.values()) <= self.most

    def spoilt(self, text: str) -> str:
        """Say the first word over and over."""
        return f"{text} {' '.join(words_of(text)[:1] * self.most)}"

    @classmethod
    def read_off(cls, rng: np.random.Generator, text: str) -> "Repeats | None":
        """Take its most frequent word, if that is not too frequent."""
        most = max(Counter(words_of(text)).values())
        return cls(most) if most <= 4 else None

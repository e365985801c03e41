"""What functions are made of: steps that change a list, in words, in Python, and as a function of ours."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal

import numpy as np

Type = Literal["numbers", "words"]
Apply = Callable[[list[Any]], Any]


@dataclass(frozen=True, slots=True)
class Form:
    """One way to do a step: as Python, and as a function of ours, which does the same."""

    code: str
    apply: Apply


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a function.

    Attributes:
        text: What it does.
        right: How.
        wrong: A likely mistake.
    """

    text: str
    right: Form
    wrong: Form


Draw = Callable[[np.random.Generator], Step]


def _step(text: str, right: tuple[str, Apply], wrong: tuple[str, Apply]) -> Step:
    return Step(text, Form(*right), Form(*wrong))


def _fixed(text: str, right: tuple[str, Apply], wrong: tuple[str, Apply]) -> Draw:
    step = _step(text, right, wrong)
    return lambda rng: step


def _greater(rng: np.random.Generator) -> Step:
    k = int(rng.integers(-5, 10))
    return _step(
        f"Keep the numbers greater than {k}.",
        (f"values = [x for x in values if x > {k}]", lambda v: [x for x in v if x > k]),
        (f"values = [x for x in values if x >= {k}]", lambda v: [x for x in v if x >= k]),
    )


def _no_multiples(rng: np.random.Generator) -> Step:
    k = int(rng.integers(2, 5))
    return _step(
        f"Drop the multiples of {k}.",
        (f"values = [x for x in values if x % {k} != 0]", lambda v: [x for x in v if x % k != 0]),
        (f"values = [x for x in values if x % {k} == 0]", lambda v: [x for x in v if x % k == 0]),
    )


def _times(rng: np.random.Generator) -> Step:
    k = int(rng.integers(2, 9))
    return _step(
        f"Multiply each number by {k}.",
        (f"values = [x * {k} for x in values]", lambda v: [x * k for x in v]),
        (f"values = [x + {k} for x in values]", lambda v: [x + k for x in v]),
    )


def _add(rng: np.random.Generator) -> Step:
    k = int(rng.integers(1, 20))
    return _step(
        f"Add {k} to each number.",
        (f"values = [x + {k} for x in values]", lambda v: [x + k for x in v]),
        (f"values = [x - {k} for x in values]", lambda v: [x - k for x in v]),
    )


def _first(rng: np.random.Generator) -> Step:
    n = int(rng.integers(2, 6))
    return _step(
        f"Keep only the first {n}, or all if there are fewer.",
        (f"values = values[:{n}]", lambda v: v[:n]),
        (f"values = values[:{n - 1}]", lambda v: v[: n - 1]),
    )


def _last(rng: np.random.Generator) -> Step:
    n = int(rng.integers(2, 6))
    return _step(
        f"Keep only the last {n}, or all if there are fewer.",
        (f"values = values[-{n}:]", lambda v: v[-n:]),
        (f"values = values[{n}:]", lambda v: v[n:]),
    )


def _longer(rng: np.random.Generator) -> Step:
    k = int(rng.integers(2, 5))
    return _step(
        f"Keep the words of more than {k} letters.",
        (f"values = [x for x in values if len(x) > {k}]", lambda v: [x for x in v if len(x) > k]),
        (f"values = [x for x in values if len(x) >= {k}]", lambda v: [x for x in v if len(x) >= k]),
    )


def _containing(rng: np.random.Generator) -> Step:
    letter = "aeo"[rng.integers(3)]
    return _step(
        f"Keep the words that contain the letter {letter}.",
        (f"values = [x for x in values if {letter!r} in x]", lambda v: [x for x in v if letter in x]),
        (f"values = [x for x in values if x.startswith({letter!r})]", lambda v: [x for x in v if x.startswith(letter)]),
    )


_ANY: tuple[Draw, ...] = (
    _first,
    _last,
    _fixed(
        "Reverse the order.",
        ("values = values[::-1]", lambda v: v[::-1]),
        ("values = sorted(values, reverse=True)", lambda v: sorted(v, reverse=True)),
    ),
    _fixed(
        "Keep every second one, beginning with the first.",
        ("values = values[::2]", lambda v: v[::2]),
        ("values = values[1::2]", lambda v: v[1::2]),
    ),
    _fixed(
        "Where something comes more than once, keep only its first occurrence.",
        ("values = list(dict.fromkeys(values))", lambda v: list(dict.fromkeys(v))),
        ("values = sorted(set(values))", lambda v: sorted(set(v))),
    ),
    _fixed(
        "Sort in ascending order.",
        ("values = sorted(values)", lambda v: sorted(v)),
        ("values = sorted(values, reverse=True)", lambda v: sorted(v, reverse=True)),
    ),
)

STEPS: Mapping[Type, tuple[Draw, ...]] = {
    "numbers": (
        *_ANY,
        _greater,
        _no_multiples,
        _times,
        _add,
        _fixed(
            "Square each number.",
            ("values = [x * x for x in values]", lambda v: [x * x for x in v]),
            ("values = [x + x for x in values]", lambda v: [x + x for x in v]),
        ),
        _fixed(
            "Replace each number by its absolute value.",
            ("values = [abs(x) for x in values]", lambda v: [abs(x) for x in v]),
            ("values = [-x for x in values]", lambda v: [-x for x in v]),
        ),
        _fixed(
            "Replace each number by the sum of all up to it, itself included.",
            ("values = [sum(values[: i + 1]) for i in range(len(values))]", lambda v: list(accumulate(v))),
            ("values = [sum(values[:i]) for i in range(len(values))]", lambda v: [0, *accumulate(v)][: len(v)]),
        ),
        _fixed(
            "Replace the list by the differences between each number and the one before it.",
            (
                "values = [b - a for a, b in zip(values, values[1:])]",
                lambda v: [b - a for a, b in pairwise(v)],
            ),
            (
                "values = [a - b for a, b in zip(values, values[1:])]",
                lambda v: [a - b for a, b in pairwise(v)],
            ),
        ),
    ),
    "words": (
        *_ANY,
        _longer,
        _containing,
        _fixed(
            "Write each word backwards.",
            ("values = [x[::-1] for x in values]", lambda v: [x[::-1] for x in v]),
            ("values = values[::-1]", lambda v: v[::-1]),
        ),
        _fixed(
            "Drop the first letter of each word.",
            ("values = [x[1:] for x in values]", lambda v: [x[1:] for x in v]),
            ("values = [x[:-1] for x in values]", lambda v: [x[:-1] for x in v]),
        ),
        _fixed(
            "Sort by length, the shortest first; words of equal length keep their order.",
            ("values = sorted(values, key=len)", lambda v: sorted(v, key=len)),
            ("values = sorted(values)", lambda v: sorted(v)),
        ),
        _fixed(
            "Write the first letter of each word once more at its end; an empty word remains empty.",
            ("values = [x + x[:1] for x in values]", lambda v: [x + x[:1] for x in v]),
            ("values = [x + x[-1:] for x in values]", lambda v: [x + x[-1:] for x in v]),
        ),
    ),
}
"""Steps from a list to a list."""

_LIST = _fixed("Return the list.", ("return values", list), ("return values[:-1]", lambda v: v[:-1]))

ENDS: Mapping[Type, tuple[Draw, ...]] = {
    "numbers": (
        _LIST,
        _fixed(
            "Return the sum, which is 0 for an empty list.",
            ("return sum(values)", sum),
            ("return sum(values[1:])", lambda v: sum(v[1:])),
        ),
        _fixed(
            "Return the largest number minus the smallest one, or 0 for an empty list.",
            (
                "return max(values, default=0) - min(values, default=0)",
                lambda v: max(v, default=0) - min(v, default=0),
            ),
            ("return max(values, default=0)", lambda v: max(v, default=0)),
        ),
    ),
    "words": (
        _LIST,
        _fixed(
            "Return the words joined by a hyphen.",
            ('return "-".join(values)', "-".join),
            ('return "".join(values)', "".join),
        ),
        _fixed(
            "Return how many letters the words have together.",
            ("return sum(len(x) for x in values)", lambda v: sum(map(len, v))),
            ("return max((len(x) for x in values), default=0)", lambda v: max(map(len, v), default=0)),
        ),
    ),
}
"""The last steps: from a list to what is returned."""

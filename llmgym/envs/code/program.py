"""Drawing a function, what is wrong with it, and what it is tested with."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmgym.envs.code.steps import ENDS, STEPS, Form, Step, Type

HIDDEN = 12  # tests
_MOST_EQUAL = 4  # hidden tests with the same value, which a constant would pass
_LEAST_BROKEN = 2  # hidden tests that a mistake fails

_WORDS = """
    oak pear a stone sea level apple noon at moon river tree ear banana to eagle dove open leaf area
    """.split()  # noqa: SIM905  # a list of words reads better without quotes


@dataclass(frozen=True, slots=True)
class Program:
    """One task: a function, in steps.

    Attributes:
        type: What it takes a list of.
        steps: What it does; the last one returns.
        fault: Which step is wrong in the function that is to be mended, and in a mistake.
        broken: Whether that function is shown, to be mended.
        shown: The arguments of the examples.
        hidden: The arguments of the tests.
    """

    type: Type
    steps: tuple[Step, ...]
    fault: int
    broken: bool
    shown: tuple[list[Any], ...]
    hidden: tuple[list[Any], ...]

    @property
    def content(self) -> str:
        """What it does, and whether it has to be written or mended."""
        return "\n".join([*(step.text for step in self.steps), str(self.fault) if self.broken else ""])

    @property
    def right(self) -> str:
        """The function."""
        return _source([step.right for step in self.steps])

    @property
    def wrong(self) -> str:
        """The function with a mistake."""
        return _source(self._spoilt)

    @property
    def _spoilt(self) -> list[Form]:
        return [step.wrong if i == self.fault else step.right for i, step in enumerate(self.steps)]

    def value(self, values: Sequence[Any]) -> Any:
        """Return what the function gives."""
        return _applied([step.right for step in self.steps], values)

    @property
    def tests_enough(self) -> bool:
        """Whether its hidden tests notice its mistake, every step that is left out, and a constant."""
        right = self._values([step.right for step in self.steps])
        if (
            max(Counter(right).values()) > _MOST_EQUAL
            or _differences(self._values(self._spoilt), right) < _LEAST_BROKEN
        ):
            return False
        rest = ([step.right for j, step in enumerate(self.steps) if j != i] for i in range(len(self.steps) - 1))
        return all(_differences(self._values(forms), right) for forms in rest)

    def _values(self, forms: Sequence[Form]) -> list[str]:
        return [json.dumps(_applied(forms, values)) for values in self.hidden]


def draw_program(rng: np.random.Generator, steps: int, examples: int) -> Program:
    """Draw a function of so many steps before it returns, with so many examples."""
    while True:
        type_: Type = "numbers" if rng.random() < 0.5 else "words"
        drawn = [STEPS[type_][rng.integers(len(STEPS[type_]))](rng) for _ in range(steps)]
        drawn.append(ENDS[type_][rng.integers(len(ENDS[type_]))](rng))
        fault, broken = int(rng.integers(len(drawn))), bool(rng.random() < 0.5)
        shown = [_values(rng, type_, int(rng.integers(4, 8))) for _ in range(examples)]
        # Short ones, and some that are long enough to tell first from last.
        lengths = [0, 1, 2, *(int(length) for length in rng.integers(4, 12, HIDDEN - 3))]
        hidden = [_values(rng, type_, length) for length in lengths]
        program = Program(type_, tuple(drawn), fault, broken, tuple(shown), tuple(hidden))
        if len({step.text for step in drawn}) == len(drawn) and program.tests_enough:
            return program


def _values(rng: np.random.Generator, type_: Type, length: int) -> list[Any]:
    if type_ == "words":
        return [_WORDS[i] for i in rng.integers(len(_WORDS), size=length)]
    return [int(value) for value in rng.integers(-12, 25, length)]


def _source(forms: Sequence[Form]) -> str:
    return "\n".join(["def solve(values):", *(f"    {form.code}" for form in forms)])


def _applied(forms: Sequence[Form], values: Sequence[Any]) -> Any:
    found: Any = list(values)
    for form in forms:
        found = form.apply(found)
    return found


def _differences(one: Sequence[str], other: Sequence[str]) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))

"""Scorers that judge an episode by itself, and how a plain function becomes one."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from llmgym.errors import EnvironmentContractError
from llmgym.types import Episode, Score, well_formed

ScoreLike = float | Mapping[str, float] | Score
ScoreFunction = Callable[[Episode], ScoreLike]


@runtime_checkable
class Scorer(Protocol):
    """Turns finished episodes into scores, a batch at a time."""

    def score(self, episodes: Sequence[Episode]) -> list[Score]:
        """Return one score per episode, in the same order."""
        ...


class FunctionScorer:
    """A scorer from a function of one episode.

    Args:
        function: Returns a number, a mapping of named parts whose sum is the reward, or a
            `Score`.
    """

    def __init__(self, function: ScoreFunction) -> None:
        self.function = function

    def score(self, episodes: Sequence[Episode]) -> list[Score]:
        """Apply the function to every episode."""
        name = getattr(self.function, "__name__", "the scorer")
        return [as_score(self.function(episode), name=name) for episode in episodes]


class Unscored:
    """A scorer that leaves every episode without a score, for whoever plays them to score them later."""

    def score(self, episodes: Sequence[Episode]) -> list[Score]:
        """Return missing scores."""
        return [Score(None, error="left to be scored later")] * len(episodes)


def score_all(scorer: Scorer, episodes: Sequence[Episode]) -> list[Score]:
    """Apply a scorer, whoever wrote it, and check what it returns.

    Raises:
        EnvironmentContractError: It returned another number of scores, or one that is no finite number.
    """
    name = f"{type(scorer).__name__}.score"
    return [as_score(value, name=name) for value in one_each(scorer.score(episodes), len(episodes), name)]


def one_each(values: object, expected: int, name: str) -> Sequence[Any]:
    """Check that `values`, which `name` returned, are a sequence of as many as expected."""
    if not isinstance(values, Sequence) or len(values) != expected:
        got = f"{len(values)} of them" if isinstance(values, Sequence) else type(values).__name__
        raise EnvironmentContractError(
            f"{name} has to return a list of {expected}, one for each it is given, got {got}."
        )
    return values


def as_score(value: ScoreLike, *, name: str) -> Score:
    """Turn what a scoring function returned into a `Score`.

    Args:
        value: A number, a mapping of named parts to sum, or a `Score`.
        name: Who returned it, for the error message.

    Raises:
        EnvironmentContractError: The value, or one of its parts, is not a finite number.
    """
    if isinstance(value, Score):
        if value.value is None:
            return value
        parts = _named(value.parts, name)
        return Score(finite(value.value, name), parts)
    if isinstance(value, Mapping):
        parts = _named(value, name)
        return Score(finite(sum(parts.values()), f"the sum of {name}"), parts)
    return Score(finite(value, name))


def _named(parts: Mapping[str, float], name: str) -> dict[str, float]:
    """Return parts under names that are text, as files hold them, with values that are finite numbers."""
    if "score_missing" in parts:
        raise EnvironmentContractError(
            f"{name} returned a part called 'score_missing': that name marks a score that is not there; to say so, "
            "return Score(None, error='why')."
        )
    return {well_formed(str(key)): finite(part, f"{name}[{key!r}]") for key, part in parts.items()}


def finite(value: object, name: str, what: str = "") -> float:
    """Return a number, of Python, NumPy or torch, as a float.

    Args:
        value: What `name` returned.
        name: Who returned it, for the error message.
        what: Which of several things it returned, for the error message.

    Raises:
        EnvironmentContractError: It is no real number, or not a finite one.
    """
    number = as_number(value)
    if number is None or not math.isfinite(number):
        expected = f"a finite number as {what}" if what else "a finite number"
        raise EnvironmentContractError(f"{name} has to return {expected}, got {type(value).__name__}: {_shown(value)}")
    return number


def as_number(value: object) -> float | None:
    """Return a real number of any kind as a float; None if it is something else, such as text that spells one.

    Examples:
        >>> as_number(True), as_number(0.5), as_number("0.5"), as_number(b"0.5"), as_number(1j), as_number([1.0])
        (1.0, 0.5, None, None, None, None)
    """
    kind = getattr(getattr(value, "dtype", None), "kind", "f")  # NumPy's: b, i, u and f are numbers
    if isinstance(value, str | bytes | bytearray) or kind not in "biuf" or getattr(value, "ndim", 0) != 0:
        return None
    try:
        return float(value)  # type: ignore[arg-type]  # this is the question
    except (TypeError, ValueError, RuntimeError):  # the last: of a complex tensor
        return None
    except OverflowError:
        return math.inf


def _shown(value: object) -> str:
    """Return how a value looks, unless that takes more than it is worth."""
    try:
        return f"{value!r:.80}"
    except ValueError:  # an integer of thousands of digits
        return "a number too large to show"

"""Scorers that judge an episode by itself, and how a plain function becomes one."""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from llmgym.envs.waiting import each, then, waits
from llmgym.errors import EnvironmentContractError
from llmgym.types import Episode, Score, well_formed

ScoreLike = float | Mapping[str, float] | Score
ScoreFunction = Callable[[Episode], ScoreLike | Awaitable[ScoreLike]]


@runtime_checkable
class Scorer(Protocol):
    """Turns finished episodes into scores, one batch at a time.

    Example:
        >>> from llmgym.types import Turn
        >>> class Brief:
        ...     def score(self, episodes):
        ...         return [Score(1.0 if len(episode.actions[-1]) <= 10 else 0.0) for episode in episodes]
        >>> isinstance(Brief(), Scorer)
        True
        >>> short = Episode(turns=[Turn("Which service failed?", "auth")])
        >>> long = Episode(turns=[Turn("Which service failed?", "I believe that it is auth.")])
        >>> [score.value for score in Brief().score([short, long])]
        [1.0, 0.0]
    """

    def score(self, episodes: Sequence[Episode]) -> list[Score] | Awaitable[list[Score]]:
        """Return one score per episode, in the same order; may be a coroutine."""
        ...


class FunctionScorer:
    """A scorer from a function of one episode.

    Args:
        function: Returns a number, a mapping of named parts whose sum is the reward, or a `Score`.
            It may be a coroutine function, or say that it is `blocking`.
        name: What messages call it; None for its own name.
    """

    per: ClassVar[str] = "episode"

    def __init__(self, function: ScoreFunction, name: str | None = None) -> None:
        self.function, self.name = function, name or called(function)
        self.waits = waits(function, "__call__")

    def score(self, episodes: Sequence[Episode]) -> list[Score] | Awaitable[list[Score]]:
        """Apply the function to every episode."""
        calls = [(episode,) for episode in episodes]
        values = each(self.function, calls, blocking=getattr(self.function, "blocking", False))
        turns = [len(episode.turns) for episode in episodes]
        return then(values, lambda values: [as_score(*one, name=self.name) for one in zip(values, turns, strict=True)])


def called(scorer: object) -> str:
    """Return what messages call a scorer: the name that it was given, or else its own.

    Examples:
        >>> called(FunctionScorer(len, "brief")), called(len)
        ('brief', 'len')
    """
    known = next((name for one, name in _NAMES if one is scorer), None)
    own = (getattr(scorer, "name", None), getattr(scorer, "__name__", None), type(scorer).__name__)
    return known or next(name for name in own if isinstance(name, str) and name)


def give_name(scorer: object, name: str) -> None:
    """Have messages call a scorer by the name that its user gave it, unless it has one already."""
    if not any(one is scorer for one, _ in _NAMES):
        _NAMES.append((scorer, name))


_NAMES: list[tuple[object, str]] = []  # of scorers that have been given one


def score_all(
    scorer: Scorer, episodes: Sequence[Episode], read: "Callable[[Any, int, str], Score] | None" = None
) -> list[Score] | Awaitable[list[Score]]:
    """Ask a scorer, whoever wrote it, and check what it returns; an awaitable if it waits.

    Args:
        scorer: The scorer.
        episodes: Finished ones.
        read: Makes a score of what is returned for one, given its number of turns and the scorer's name; None for
            `as_score`.

    Raises:
        EnvironmentContractError: It returned another number of scores, one that is no finite number, or rewards of
            turns that are not its parts.
    """
    name, read = called(scorer), read or as_score

    def checked(answers: list[Any]) -> list[Score]:
        values = one_each(answers[0], len(episodes), name)
        return [read(value, len(one.turns), name) for value, one in zip(values, episodes, strict=True)]

    return then(each(scorer.score, [(episodes,)], blocking=getattr(scorer, "blocking", False)), checked)


def one_each(values: object, expected: int, name: str) -> Sequence[Any]:
    """Check that `values`, which `name` returned, are a sequence or an array of the expected length."""
    values = values.tolist() if hasattr(values, "tolist") and not isinstance(values, Sequence) else values
    if not isinstance(values, Sequence) or len(values) != expected:
        got = f"{len(values)} of them" if isinstance(values, Sequence) else type(values).__name__
        raise EnvironmentContractError(
            f"{name} has to return a list of {expected}, one for each it is given, got {got}."
        )
    return values


def as_score(value: ScoreLike, turns: int, name: str) -> Score:
    """Turn what a scoring function returned into a `Score`.

    Args:
        value: A number, a mapping of named parts to sum, or a `Score`.
        turns: Of the episode.
        name: Who returned it, for the error message.

    Raises:
        EnvironmentContractError: The value, or one of its parts, is not a finite number, or the rewards of turns are
            not one for each with the value as their sum.
    """
    if type(value) is float and math.isfinite(value):
        return Score(value)  # the usual case
    if isinstance(value, Score):
        if value.value is None:
            return Score(None, named(value.parts, name), error=value.error)
        if value.kind == "win_rate" and not 0.0 <= finite(value.value, name) <= 1.0:
            raise EnvironmentContractError(f"{name} has to return win rates between 0 and 1, got {value.value!r:.80}")
        number, rewards = finite(value.value, name), _rewards(value, turns, name)
        return Score(number, named(value.parts, name), rewards=rewards, kind=value.kind)
    if isinstance(value, Mapping):
        parts = named(value, name)
        return Score(finite(sum(parts.values()), f"the sum of {name}"), parts)
    return Score(finite(value, name))


def _rewards(score: Score, turns: int, name: str) -> list[float] | None:
    """Return the rewards of turns, where a score has them."""
    if score.rewards is None or score.value is None:
        return None
    rewards = [finite(reward, name, what="the reward of a turn") for reward in score.rewards]
    if len(rewards) != turns or not math.isclose(sum(rewards), score.value, rel_tol=1e-6, abs_tol=1e-6):
        raise EnvironmentContractError(
            f"{name} has to return a reward for each of {turns} turns that sum up to {score.value}, got {rewards!r:.80}"
        )
    return rewards


def named(parts: Mapping[str, float], name: str) -> dict[str, float]:
    """Return parts under names that are text, as files hold them, with values that are finite numbers.

    Args:
        parts: What `name` returned.
        name: Who returned it, for the error message.

    Raises:
        EnvironmentContractError: A part is not a finite number, or marks a missing score.
    """
    if not isinstance(parts, Mapping):
        raise EnvironmentContractError(f"{name} has to return parts by name, got {type(parts).__name__}")
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
        hint = "; Score(None, error=...) says why there is none" if value is None else ""
        raise EnvironmentContractError(
            f"{name} has to return {expected}, got {type(value).__name__}: {_shown(value)}{hint}"
        )
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

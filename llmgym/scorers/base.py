"""What a scorer is, how a plain function becomes one, and how one is found by its name."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from llmgym.errors import ConfigError, EnvironmentContractError, UnknownNameError, did_you_mean, import_user_module
from llmgym.types import Episode, Score

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
        parts = {key: _finite(part, f"{name}[{key!r}]") for key, part in value.parts.items()}
        return Score(_finite(value.value, name), parts)
    if isinstance(value, Mapping):
        parts = {key: _finite(part, f"{name}[{key!r}]") for key, part in value.items()}
        return Score(sum(parts.values()), parts)
    return Score(_finite(value, name))


def _finite(value: object, name: str) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]  # anything that is a number will do, numpy's included
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, str) or not math.isfinite(number):
        raise EnvironmentContractError(
            f"{name} has to return a finite number, got {type(value).__name__}: {value!r:.80}"
        )
    return number


_SCORERS: dict[str, Scorer] = {}


def register_scorer(name: str) -> Callable[[ScoreFunction], ScoreFunction]:
    """Register the decorated function of an episode as a scorer under `name`."""

    def register(function: ScoreFunction) -> ScoreFunction:
        _SCORERS[name] = FunctionScorer(function)
        return function

    return register


def resolve_scorer(scorer: Scorer | ScoreFunction | str) -> Scorer:
    """Find a scorer: one that is one already, a function, a registered name, or ``"module:name"``.

    Raises:
        UnknownNameError: No scorer of that name is registered.
    """
    if isinstance(scorer, Scorer):
        return scorer
    if callable(scorer):
        return FunctionScorer(scorer)
    if not isinstance(scorer, str):
        raise ConfigError(f"scorer: expected a Scorer, a function or a name, got {scorer!r:.80}")
    module, _, name = scorer.rpartition(":")
    if module:
        import_user_module(module, scorer)
    if name not in _SCORERS:
        known = ", ".join(sorted(_SCORERS)) or "none"
        raise UnknownNameError(
            f"No scorer is registered as {name!r}.{did_you_mean(name, _SCORERS)} Registered: {known}."
        )
    return _SCORERS[name]

"""Scorers that compare two episodes of one task, and how a plain function becomes one."""

from collections.abc import Awaitable, Callable, Sequence
from itertools import permutations
from typing import Any, ClassVar, Protocol, runtime_checkable

from llmgym.envs.waiting import each, then, waits
from llmgym.errors import EnvironmentContractError
from llmgym.scorers.pointwise import called, finite, one_each
from llmgym.types import Episode, Score

Comparison = float | Score | None
CompareFunction = Callable[[Episode, Episode], Comparison | Awaitable[Comparison]]


@runtime_checkable
class PairwiseScorer(Protocol):
    """Says which of two episodes of one task is better, one batch of pairs at a time."""

    def compare(self, pairs: Sequence[tuple[Episode, Episode]]) -> list[Comparison] | Awaitable[list[Comparison]]:
        """Return, for each pair, the probability that the first beats the second.

        None, or ``Score(None, error="why")``, says that it cannot tell. May be a coroutine.
        """
        ...


class PairwiseFunctionScorer:
    """A pairwise scorer from a function of two episodes.

    Args:
        function: Returns the probability that the first beats the second, or None. It may be a
            coroutine function, or say that it is `blocking`.
        name: What messages call it; None for its own name.
    """

    per: ClassVar[str] = "group"

    def __init__(self, function: CompareFunction, name: str | None = None) -> None:
        self.function, self.name = function, name or called(function)
        self.waits = waits(function, "__call__")

    def compare(self, pairs: Sequence[tuple[Episode, Episode]]) -> list[Comparison] | Awaitable[list[Comparison]]:
        """Apply the function to every pair."""
        answers = each(self.function, pairs, blocking=getattr(self.function, "blocking", False))
        return then(answers, list)


def win_rates(
    scorer: PairwiseScorer, episodes: Sequence[Episode], groups: Sequence[int]
) -> list[Score] | Awaitable[list[Score]]:
    """Have all siblings compared in both orders, so that neither order nor a bias for the first counts.

    Args:
        scorer: Asked once for all pairs, whoever wrote it.
        episodes: Finished ones.
        groups: The group of each.

    Returns:
        The mean probability of each of beating a sibling, of the pairs that it could tell; an awaitable if the scorer
        waits. What is neither a probability nor None tells nothing.

    Raises:
        EnvironmentContractError: It returned another number of values.
    """
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    pairs = [pair for group in members.values() for pair in permutations(group, 2)]

    def averaged(values: list[float | Score | None]) -> list[Score]:
        wins: list[list[float]] = [[] for _ in episodes]
        reasons = [f"{called(scorer)} compared it with no sibling"] * len(episodes)
        for (first, second), probability in zip(pairs, values, strict=True):
            if isinstance(probability, Score):
                reasons[first] = reasons[second] = probability.error or reasons[first]
            elif probability is not None:
                wins[first].append(probability)
                wins[second].append(1.0 - probability)
        return [
            Score(sum(rates) / len(rates), kind="win_rate") if rates else Score(None, error=reason)
            for rates, reason in zip(wins, reasons, strict=True)
        ]

    return then(compare_all(scorer, [(episodes[first], episodes[second]) for first, second in pairs]), averaged)


def compare_all(
    scorer: PairwiseScorer, pairs: Sequence[tuple[Episode, Episode]]
) -> list[Comparison] | Awaitable[list[Comparison]]:
    """Ask a scorer that compares, whoever wrote it; an awaitable if it waits.

    Returns:
        For each pair a probability, None, or a missing score that says why there is none.

    Raises:
        EnvironmentContractError: It returned another number of values.
    """
    name = called(scorer)

    def checked(answers: list[Any]) -> list[Comparison]:
        return [_probability(value, name) for value in one_each(answers[0], len(pairs), name)] if answers else []

    return then(each(scorer.compare, [(pairs,)] if pairs else [], blocking=getattr(scorer, "blocking", False)), checked)


def _probability(value: object, name: str) -> Comparison:
    if value is None or (isinstance(value, Score) and value.value is None):
        return value
    try:
        probability = finite(value, name)
    except EnvironmentContractError as error:
        return Score(None, error=str(error))
    if 0.0 <= probability <= 1.0:
        return probability
    return Score(None, error=f"{name} has to return probabilities between 0 and 1 or None, got {value!r:.80}")

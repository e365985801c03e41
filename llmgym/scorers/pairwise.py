"""Scorers that compare two episodes of one task, and how a plain function becomes one."""

import math
import random
import statistics
from collections.abc import Awaitable, Callable, Iterator, Sequence
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
    """Says which of two episodes of one task is better, one batch of pairs at a time.

    It may have an attribute `opponents`: how many siblings each episode is compared with, where all would be too many.
    """

    def compare(self, pairs: Sequence[tuple[Episode, Episode]]) -> list[Comparison] | Awaitable[list[Comparison]]:
        """Return, for each pair, the probability that the first beats the second.

        None, or ``Score(None, error="why")``, says that it cannot tell. May be a coroutine.
        """
        ...


class PairwiseFunctionScorer:
    """A pairwise scorer from a function of two episodes.

    Args:
        function: Returns the probability that the first beats the second, or None. It may be a
            coroutine function, say that it is `blocking`, or how many `opponents` each episode has.
        name: What messages call it; None for its own name.
    """

    per: ClassVar[str] = "group"

    def __init__(self, function: CompareFunction, name: str | None = None) -> None:
        self.function, self.name = function, name or called(function)
        self.waits = waits(function, "__call__")
        self.opponents: int | None = getattr(function, "opponents", None)

    def compare(self, pairs: Sequence[tuple[Episode, Episode]]) -> list[Comparison] | Awaitable[list[Comparison]]:
        """Apply the function to every pair."""
        answers = each(self.function, pairs, blocking=getattr(self.function, "blocking", False))
        return then(answers, list)


def win_rates(
    scorer: PairwiseScorer, episodes: Sequence[Episode], groups: Sequence[int]
) -> list[Score] | Awaitable[list[Score]]:
    """Have siblings compared in both orders, so that neither order nor a bias for the first counts.

    Args:
        scorer: Asked once for all pairs, whoever wrote it.
        episodes: Finished ones.
        groups: The group of each.

    Returns:
        The mean probability of each of beating a sibling, of the pairs that it could tell in both orders; an awaitable
        if the scorer waits. What is neither a probability nor None tells nothing. Where the scorer has `opponents`,
        each episode meets so many, and the part ``standard_error`` says how far its win rate may be from that against
        all siblings.

    Raises:
        EnvironmentContractError: It returned another number of values.
    """
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    opponents = _opponents(scorer)
    pairs = [pair for group, those in members.items() for pair in _pairs(those, opponents, seed=group)]

    def averaged(values: list[float | Score | None]) -> list[Score]:
        wins: list[dict[int, list[float]]] = [{} for _ in episodes]  # of each episode, by opponent
        reasons = [f"{called(scorer)} compared it with no sibling"] * len(episodes)
        for (first, second), probability in zip(pairs, values, strict=True):
            if isinstance(probability, Score):
                reasons[first] = reasons[second] = probability.error or reasons[first]
            elif probability is not None:
                wins[first].setdefault(second, []).append(probability)
                wins[second].setdefault(first, []).append(1.0 - probability)
        for met in wins:  # told in one order alone, a bias for the first would count
            for opponent in [one for one, told in met.items() if len(told) < 2]:
                del met[opponent]
        siblings = {index: len(those) - 1 for those in members.values() for index in those}
        return [
            _win_rate(list(met.values()), siblings[index] if opponents else None)
            if met
            else Score(None, error=reasons[index])
            for index, met in enumerate(wins)
        ]

    return then(compare_all(scorer, [(episodes[first], episodes[second]) for first, second in pairs]), averaged)


def _opponents(scorer: PairwiseScorer) -> int | None:
    """Return how many siblings each episode meets; None for all.

    Raises:
        EnvironmentContractError: It is no number of siblings.
    """
    opponents = getattr(scorer, "opponents", None)
    if opponents is not None and (type(opponents) is not int or opponents < 2 or opponents % 2):
        raise EnvironmentContractError(
            f"{called(scorer)}.opponents has to be an even number from 2 on, or None for all, got {opponents!r:.80}"
        )
    return opponents


def _pairs(members: Sequence[int], opponents: int | None, seed: int) -> Iterator[tuple[int, int]]:
    """Yield the pairs of a group in both orders: all, or those in which each meets `opponents` that chance names.

    Chance seats them at a round table, and each meets those who sit next on both sides.
    """
    if opponents is None or opponents >= len(members) - 1:
        yield from permutations(members, 2)
        return
    seated = random.Random(seed).sample(members, len(members))
    for place, first in enumerate(seated):
        for distance in range(1, opponents // 2 + 1):
            second = seated[(place + distance) % len(seated)]
            yield from ((first, second), (second, first))


def _win_rate(met: Sequence[Sequence[float]], siblings: int | None) -> Score:
    """Return a win rate; where there may be siblings that were not met, with its standard error.

    It is that of a mean of a sample that is drawn without replacement (Cochran, Sampling Techniques, theorem 2.2).

    Args:
        met: The probabilities of beating each opponent, one or two for both orders.
        siblings: How many there are; None if all were met.
    """
    every = [rate for rates in met for rate in rates]
    mean = sum(every) / len(every)
    if siblings is None:
        return Score(mean, kind="win_rate")
    of_each = [sum(rates) / len(rates) for rates in met]
    spread = 0.5 if len(of_each) == 1 else statistics.stdev(of_each)  # of one, nothing is known but its bounds
    error = spread * math.sqrt((1 - len(of_each) / siblings) / len(of_each))
    return Score(mean, {"standard_error": error}, kind="win_rate")


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

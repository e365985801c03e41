"""Scorers that compare two episodes of one task, and how a plain function becomes one."""

from collections.abc import Awaitable, Callable, Sequence
from itertools import permutations
from typing import Any, ClassVar, Protocol, runtime_checkable

from llmgym.envs.waiting import each, then, waits
from llmgym.errors import EnvironmentContractError
from llmgym.scorers.pointwise import finite, one_each
from llmgym.types import Episode, Score

CompareFunction = Callable[[Episode, Episode], float | Awaitable[float | None] | None]


@runtime_checkable
class PairwiseScorer(Protocol):
    """Says which of two episodes of one task is better, one batch of pairs at a time."""

    def compare(self, pairs: Sequence[tuple[Episode, Episode]]) -> list[float | None] | Awaitable[list[float | None]]:
        """Return, for each pair, the probability that the first beats the second; None if it cannot tell.

        May be a coroutine.
        """
        ...


class PairwiseFunctionScorer:
    """A pairwise scorer from a function of two episodes.

    Args:
        function: Returns the probability that the first beats the second, or None. It may be a
            coroutine function, or say that it is `blocking`.
    """

    per: ClassVar[str] = "group"

    def __init__(self, function: CompareFunction) -> None:
        self.function = function
        self.waits = waits(function, "__call__")

    def compare(self, pairs: Sequence[tuple[Episode, Episode]]) -> list[float | None] | Awaitable[list[float | None]]:
        """Apply the function to every pair."""
        name = getattr(self.function, "__name__", "the scorer")
        answers = each(self.function, pairs, blocking=getattr(self.function, "blocking", False))
        return then(answers, lambda answers: [_probability(answer, name) for answer in answers])


def win_rates(
    scorer: PairwiseScorer, episodes: Sequence[Episode], groups: Sequence[int]
) -> list[Score] | Awaitable[list[Score]]:
    """Have all siblings compared in both orders, so that neither order nor a bias for the first counts.

    Args:
        scorer: Asked once for all pairs, whoever wrote it.
        episodes: Finished ones.
        groups: The group of each.

    Returns:
        The mean probability of each of beating a sibling; an awaitable if the scorer waits.

    Raises:
        EnvironmentContractError: It returned another number of values, or one that is neither
            a probability nor None.
    """
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    pairs = [pair for group in members.values() for pair in permutations(group, 2)]
    name = type(scorer).__name__

    def averaged(answers: list[Any]) -> list[Score]:
        wins: list[list[float]] = [[] for _ in episodes]
        values = one_each(answers[0], len(pairs), f"{name}.compare") if pairs else []
        for (first, second), value in zip(pairs, values, strict=True):
            if (probability := _probability(value, f"{name}.compare")) is not None:
                wins[first].append(probability)
                wins[second].append(1.0 - probability)
        missing = Score(None, error=f"{name} compared it with no sibling")
        return [Score(sum(rates) / len(rates), kind="win_rate") if rates else missing for rates in wins]

    calls = [([(episodes[first], episodes[second]) for first, second in pairs],)] if pairs else []
    return then(each(scorer.compare, calls, blocking=getattr(scorer, "blocking", False)), averaged)


def _probability(value: object, name: str) -> float | None:
    if value is None:
        return None
    probability = finite(value, name)
    if not 0.0 <= probability <= 1.0:
        raise EnvironmentContractError(f"{name} has to return probabilities between 0 and 1 or None, got {value!r:.80}")
    return probability

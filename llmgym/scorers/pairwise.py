"""Scorers that compare two episodes of one task, and how a plain function becomes one."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from llmgym.errors import EnvironmentContractError
from llmgym.scorers.pointwise import finite, one_each
from llmgym.types import Episode

CompareFunction = Callable[[Episode, Episode], float | None]


@runtime_checkable
class PairwiseScorer(Protocol):
    """Says which of two episodes of one task is better, a batch of pairs at a time."""

    def compare(self, pairs: Sequence[tuple[Episode, Episode]]) -> list[float | None]:
        """Return, for each pair, the probability that the first beats the second; None if it cannot tell."""
        ...


class PairwiseFunctionScorer:
    """A pairwise scorer from a function of two episodes.

    Args:
        function: Returns the probability that the first beats the second, or None.
    """

    def __init__(self, function: CompareFunction) -> None:
        self.function = function

    def compare(self, pairs: Sequence[tuple[Episode, Episode]]) -> list[float | None]:
        """Apply the function to every pair."""
        name = getattr(self.function, "__name__", "the scorer")
        return [_probability(self.function(first, second), name) for first, second in pairs]


def compare_all(scorer: PairwiseScorer, pairs: Sequence[tuple[Episode, Episode]]) -> list[float | None]:
    """Apply a pairwise scorer, whoever wrote it, and check what it returns.

    Raises:
        EnvironmentContractError: It returned another number of values, or one that is neither
            a probability nor None.
    """
    name = f"{type(scorer).__name__}.compare"
    return [_probability(value, name) for value in one_each(scorer.compare(pairs), len(pairs), name)]


def _probability(value: object, name: str) -> float | None:
    if value is None:
        return None
    probability = finite(value, name)
    if not 0.0 <= probability <= 1.0:
        raise EnvironmentContractError(f"{name} has to return probabilities between 0 and 1 or None, got {value!r:.80}")
    return probability

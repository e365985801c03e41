"""How any kind of scorer is asked: when, about how much at once, and what happens if it raises."""

from collections.abc import Awaitable, Sequence
from inspect import isawaitable
from typing import Literal, Protocol, get_args, runtime_checkable

from llmgym.envs.waiting import waits
from llmgym.errors import EnvironmentContractError, LLMGymError
from llmgym.scorers.pairwise import PairwiseScorer, win_rates
from llmgym.scorers.pointwise import Scorer, score_all
from llmgym.types import Episode, Score

AnyScorer = Scorer | PairwiseScorer
Per = Literal["episode", "group", "rollout"]
WIDER: tuple[Per, ...] = get_args(Per)
"""How much a scorer can be asked about at once, the least first."""


@runtime_checkable
class SiblingScorer(Protocol):
    """Scores episodes of which it is told who are siblings."""

    def score_siblings(
        self, episodes: Sequence[Episode], groups: Sequence[int]
    ) -> list[Score] | Awaitable[list[Score]]:
        """Return one score per episode, in the same order, given the group of each; may be a coroutine."""
        ...


def asked_per(scorer: AnyScorer) -> Per:
    """Return how much a scorer is asked about at once: what its `per` says, or a whole rollout."""
    per: Per = getattr(scorer, "per", "rollout")
    if per not in WIDER:
        raise EnvironmentContractError(f"{type(scorer).__name__}.per has to be one of {WIDER}, got {per!r:.80}")
    return per


def is_waiting(scorer: AnyScorer) -> bool:
    """Tell whether a scorer waits for something, as a coroutine or in a thread."""
    return bool(getattr(scorer, "waits", False)) or waits(scorer, "score", "compare")


def compares(scorer: AnyScorer) -> bool:
    """Tell whether a scorer compares siblings, and so scores none without the others."""
    return isinstance(scorer, PairwiseScorer) or bool(getattr(scorer, "compares", False))


def judges_alone(scorer: AnyScorer | None) -> Scorer | None:
    """Return a scorer if it can score an episode without siblings, else None."""
    return None if scorer is None or isinstance(scorer, PairwiseScorer) or compares(scorer) else scorer


def ask(scorer: AnyScorer, episodes: Sequence[Episode], groups: Sequence[int]) -> list[Score] | Awaitable[list[Score]]:
    """Ask a scorer once for the scores of finished episodes.

    Args:
        scorer: Scores episodes, or compares siblings; then a score is a win rate.
        episodes: The episodes.
        groups: The group of each.

    Returns:
        A score for each, missing where the scorer raised an error; an awaitable if it waits.

    Raises:
        EnvironmentContractError: It returned something that is no score.
    """
    try:
        if isinstance(scorer, SiblingScorer):
            scores = scorer.score_siblings(episodes, groups)
        elif isinstance(scorer, PairwiseScorer):
            scores = win_rates(scorer, episodes, groups)
        else:
            scores = score_all(scorer, episodes)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a judge out of reach costs scores, and not the run
        return _missing(error, scorer, len(episodes))
    return _arrived(scores, scorer, len(episodes)) if isawaitable(scores) else scores


async def _arrived(scores: Awaitable[list[Score]], scorer: AnyScorer, count: int) -> list[Score]:
    try:
        return await scores
    except Exception as error:  # noqa: BLE001 - see above
        return _missing(error, scorer, count)


def _missing(error: BaseException, scorer: AnyScorer, count: int) -> list[Score]:
    """Return missing scores that say what a scorer raised; what a user can mend is raised again."""
    if isinstance(error, LLMGymError):
        raise error
    name = getattr(getattr(scorer, "function", None), "__name__", type(scorer).__name__)
    return [Score(None, error=f"{name} raised {type(error).__name__}: {error}")] * count

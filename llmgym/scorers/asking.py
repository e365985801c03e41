"""How any kind of scorer is asked: when, about how much at once, and what happens if it raises."""

from collections.abc import Awaitable, Sequence
from inspect import isawaitable
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from llmgym.envs.waiting import then, together, waits
from llmgym.errors import EnvironmentContractError, LLMGymError, said_by
from llmgym.scorers.pairwise import PairwiseScorer, win_rates
from llmgym.scorers.pointwise import FunctionScorer, Scorer, as_score, called, score_all
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
    """Ask a scorer for the scores of finished episodes: of all at once, or one by one if it is asked per episode.

    Args:
        scorer: Scores episodes, or compares siblings; then a score is a win rate.
        episodes: The episodes.
        groups: The group of each.

    Returns:
        A score for each, missing where the scorer raised an error or returned something that is no score; an awaitable
        if it waits.

    Raises:
        LLMGymError: What the user can mend; nothing else that a scorer does ends a run.
    """
    if type(scorer) is FunctionScorer and not scorer.waits:
        return [_of_function(scorer, episode) for episode in episodes]
    if asked_per(scorer) == "episode" and not getattr(scorer, "isolates", False):
        asked = [_ask(scorer, [episode], [group]) for episode, group in zip(episodes, groups, strict=True)]
        return then(together(asked), lambda answers: [scores[0] for scores in answers])
    return _ask(scorer, episodes, groups)


def _of_function(scorer: FunctionScorer, episode: Episode) -> Score:
    """Ask a plain function, the usual scorer, without ado."""
    try:
        return _score_or_missing(scorer.function(own_copy(episode)), len(episode.turns), scorer.name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - it costs a score, and not the run
        return _missing(error, scorer, 1)[0]


def _ask(scorer: AnyScorer, episodes: Sequence[Episode], groups: Sequence[int]) -> list[Score] | Awaitable[list[Score]]:
    """Ask a scorer once; what it raises costs these scores and no others."""
    try:
        if isinstance(scorer, SiblingScorer):  # it is made of others, which are given copies
            scores = scorer.score_siblings(episodes, groups)
        elif isinstance(scorer, PairwiseScorer):
            scores = win_rates(scorer, list(map(own_copy, episodes)), groups)
        else:
            scores = score_all(scorer, list(map(own_copy, episodes)), _score_or_missing)
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
    if isinstance(error, EnvironmentContractError):
        return [Score(None, error=str(error))] * count
    if isinstance(error, LLMGymError):
        raise error
    return [Score(None, error=f"{called(scorer)} raised {said_by(error)}")] * count


def _score_or_missing(value: Any, turns: int, name: str) -> Score:
    try:
        return as_score(value, turns, name)
    except EnvironmentContractError as error:
        return Score(None, error=str(error))


def own_copy(episode: Episode) -> Episode:
    """Return an episode that a scorer may change unnoticed, apart from instances of classes in its task."""
    seat, scored = episode.seat, episode.scored
    return Episode(episode.system_prompt, [*episode.turns], _copied(episode.task), seat, scored)


def _copied(value: Any) -> Any:
    """Return a copy of dictionaries and lists within one another."""
    if type(value) is dict:
        return {key: _copied(one) if type(one) in (dict, list) else one for key, one in value.items()}
    if type(value) is list:
        return [_copied(one) if type(one) in (dict, list) else one for one in value]
    return value

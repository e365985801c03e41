"""Scores that are made when a rollout is over: of a batch of episodes, or of a group compared with each other.

An environment scores an episode as it ends. A scorer that takes its place is asked once, for
all episodes of the rollout: a model scores them in batches, and one that compares siblings
sees complete groups. What the environment reported stays among the parts, its success too.
"""

from collections.abc import Mapping, Sequence
from itertools import permutations

from llmgym.rollout.trajectory import Trajectory
from llmgym.scorers.names import AnyScorer
from llmgym.scorers.pairwise import PairwiseScorer, compare_all
from llmgym.scorers.pointwise import score_all
from llmgym.types import Episode, Message, Score, Turn


def score_again(scorer: AnyScorer, trajectories: Sequence[Trajectory], episodes: Mapping[int, Episode]) -> None:
    """Replace the scores of trajectories by those of a scorer.

    Args:
        scorer: Scores episodes, or compares two of a group; then a score is the mean
            probability of beating a sibling.
        trajectories: The finished ones; groups are complete.
        episodes: What was said, by index of its trajectory; an episode that its environment
            did not end has none, and no score.
    """
    if isinstance(scorer, PairwiseScorer):
        scores = _win_rates(scorer, trajectories, episodes)
    else:
        scores = dict(zip(episodes, score_all(scorer, list(episodes.values())), strict=True))
    for index, score in scores.items():
        _replace(trajectories[index], score)


def episode_of(messages: Sequence[Message]) -> Episode:
    """Return a finished conversation as an episode, whose task is not known."""
    system = messages[0].content if messages[0].role == "system" else None
    said = [message.content for message in messages if message.role != "system"]
    return Episode(system, [Turn(*turn) for turn in zip(said[::2], said[1::2], strict=True)])


def _win_rates(
    scorer: PairwiseScorer, trajectories: Sequence[Trajectory], episodes: Mapping[int, Episode]
) -> dict[int, Score]:
    """Compare all siblings, both ways round, so that neither a group's order nor a scorer's liking for it counts."""
    groups: dict[int, list[int]] = {}
    for index in episodes:
        groups.setdefault(trajectories[index].group, []).append(index)
    pairs = [pair for group in groups.values() for pair in permutations(group, 2)]
    wins: dict[int, list[float]] = {index: [] for index in episodes}
    answers = compare_all(scorer, [(episodes[first], episodes[second]) for first, second in pairs]) if pairs else []
    for (first, second), probability in zip(pairs, answers, strict=True):
        if probability is not None:
            wins[first].append(probability)
            wins[second].append(1.0 - probability)
    name = type(scorer).__name__
    return {
        index: Score(sum(rates) / len(rates)) if rates else Score(None, error=f"{name} compared it with no sibling")
        for index, rates in wins.items()
    }


def _replace(trajectory: Trajectory, score: Score) -> None:
    trajectory.score, trajectory.score_error = score.value, score.error
    trajectory.parts = {**score.parts, **trajectory.parts}
    for reply in trajectory.replies:
        reply.reward = 0.0
    trajectory.replies[-1].reward = score.value or 0.0

"""How a scorer takes the place of the environments: when it is asked, and of which episodes at once.

An environment scores an episode as it ends, and what it reported stays among the parts, its
success too. What it gave for single turns stays as well: a reward comes on top of it. A scorer
that waits is asked as soon as all episodes are over that it is asked of at once: one, a group
or the whole rollout. One that does not wait is asked when the rollout is over, in the order of
the tasks. In which order episodes end changes no score.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from llmgym.envs.faults import EpisodeLostError, caught
from llmgym.envs.waiting import settled, then, together
from llmgym.errors import EnvironmentContractError
from llmgym.rollout.stopwatch import Stopwatch
from llmgym.rollout.trajectory import Trajectory
from llmgym.scorers.asking import AnyScorer, ask, asked_per, is_waiting
from llmgym.types import Episode, Message, Score, ScoreKind, Turn, as_text


class Scoring:
    """The scores of one rollout by a scorer.

    Args:
        scorer: Scores episodes, or compares two of a group.
        trajectories: Of the rollout.
        watch: Is told how long the scorer takes, if it does not wait.
    """

    def __init__(self, scorer: AnyScorer, trajectories: Sequence[Trajectory], watch: Stopwatch) -> None:
        self._scorer, self._trajectories, self._watch = scorer, trajectories, watch
        self._early, per = is_waiting(scorer), asked_per(scorer)
        self._episodes: dict[int, Episode] = {}  # that have ended, by index
        self._succeeded: dict[int, Callable[[Score], bool]] = {}  # of environments without a score, by index
        self._batches: dict[int, list[int]] = {}  # what is asked of at once, in order
        for index, trajectory in enumerate(trajectories):
            self._batches.setdefault({"episode": index, "group": trajectory.group, "rollout": 0}[per], []).append(index)
        self._batch_of = {index: batch for batch, members in self._batches.items() for index in members}
        self._playing = {batch: len(members) for batch, members in self._batches.items()}

    async def over(self, index: int, episode: Episode | None, succeeded: Callable[[Score], bool] | None = None) -> None:
        """Take what was said in an episode.

        Args:
            index: Which.
            episode: None if its environment did not end it, so that it has no score.
            succeeded: Tells a success from a score; None if its environment said already whether it was one.
        """
        if episode is not None:
            self._episodes[index] = episode
        if succeeded is not None:
            self._succeeded[index] = succeeded
        batch = self._batch_of[index]
        self._playing[batch] -= 1
        if self._early and not self._playing[batch] and (asked := self._ask(batch)):
            await asked

    def finish(self) -> None:
        """Ask a scorer that does not wait, and so may run a loop of its own: call this outside of one."""
        if not self._early:
            with self._watch.during("scoring"):  # it may run a loop of its own
                settled(together([self._ask(batch) for batch in self._batches]))

    def _ask(self, batch: int) -> Awaitable[None] | None:
        members = [index for index in self._batches[batch] if index in self._episodes]
        episodes, groups = [self._episodes[i] for i in members], [self._trajectories[i].group for i in members]
        with self._watch.during("scoring"):
            asked = ask(self._scorer, episodes, groups) if members else []
        return then(asked, partial(self._take, members))

    def _take(self, members: Sequence[int], scores: Sequence[Score]) -> None:
        for index, score in zip(members, scores, strict=True):
            total = _on_top(score, [turn.reward for turn in self._episodes[index].turns])
            if index in self._succeeded and total.value is not None and total.kind == "reward":
                success = caught(self._succeeded[index], total)
                if isinstance(success, EpisodeLostError):
                    total = Score(None, error=f"the environment cannot tell whether it was a success: {success}")
                else:
                    total = replace(total, parts={"success": float(success), **total.parts})
            trajectory = self._trajectories[index]
            if total.error is not None:
                total = replace(total, error=f"{total.error} (seed {trajectory.seed})")
            trajectory.take(total)


def _on_top(score: Score, earned: Sequence[float]) -> Score:
    """Return a score in addition to what the environment gave for each turn; a comparison stays as it is."""
    if score.value is None or score.kind != "reward" or not any(earned):
        return score
    own = score.rewards or [*[0.0] * (len(earned) - 1), score.value]
    rewards = [first + second for first, second in zip(earned, own, strict=True)]
    return replace(score, value=sum(rewards), rewards=rewards)


def kind_of(trajectories: Sequence[Trajectory]) -> ScoreKind:
    """Return what the scores of trajectories are.

    Raises:
        EnvironmentContractError: Some are of one kind and some of another, so that they cannot be compared.
    """
    kinds = sorted({trajectory.score_kind for trajectory in trajectories if trajectory.score is not None})
    if len(kinds) > 1:
        raise EnvironmentContractError(f"A scorer has to return scores of one kind, got {' and '.join(kinds)}.")
    return kinds[0] if kinds else "reward"


def episode_of(messages: Sequence[Message]) -> Episode:
    """Return a finished conversation as an episode, whose task is not known."""
    system = messages[0].content if messages[0].role == "system" else None
    turns: list[Turn] = []
    heard: list[Message] = []
    for message in messages[system is not None :]:
        if message.role == "assistant":
            turns.append(Turn(as_text(heard), message.content, tuple(heard)))
            heard = []
        else:
            heard.append(message)
    return Episode(system, turns)

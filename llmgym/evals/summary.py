"""`Summary`: what the episodes of an evaluation come to."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from llmgym.envs.text_env import TextEnv
from llmgym.evals.playing import Played
from llmgym.evals.subjects import Subject
from llmgym.registry import load_env_creator
from llmgym.rollout.limits import most_frequent
from llmgym.rollout.trajectory import Trajectory, summed
from llmgym.statistics import (
    maj_at_k,
    mean_of_tasks,
    over_k,
    pass_at_k,
    pass_hat_k,
    powers_of_two,
    share_of_tasks,
)


@dataclass(frozen=True)
class Measured:
    """A mean over tasks.

    Attributes:
        mean: Each task counts once, however many episodes it has.
        low: The lower end of the 95 % interval, clustered by task.
        high: The upper end.
        spread: Standard deviation over episodes.
    """

    mean: float
    low: float
    high: float
    spread: float


@dataclass(frozen=True)
class Summary:
    """What an evaluation comes to.

    Attributes:
        model: What it is called; see `Subject`.
        env: The id of the environment.
        split: The split that the tasks are of.
        tasks: How many tasks were played.
        episodes: How many episodes were played.
        judged: Episodes that are the denominator of successes: all but those whose environment failed, that an
            endpoint gave no reply in, or that nobody could score.
        unscored: Episodes without a score, for whatever reason.
        success: Share of successes, as the environment declares them; None if it declares none.
        reward: The score of episodes that have one.
        parts: The parts of the score, by name.
        pass_at: By k: the probability that at least one of k tries succeeds.
        pass_hat: By k: the probability that all of k tries succeed.
        maj_at: By k: the probability that most of k tries give the right answer; empty if the environment names none.
        unanswered: Episodes without an answer, which vote for none; None if the environment names none.
        no_reply: Episodes that are over because an endpoint gave no reply; they are unscored, too.
        reasons: Why episodes have no score, an example of each frequent reason, and how often it is one.
        reply_tokens: Sampled tokens per reply; None if an endpoint does not say.
        episode_tokens: Sampled tokens per episode; None if an endpoint does not say.
        read_tokens: Tokens that an endpoint read for all replies that are kept; None if there is none, or it does not
            say.
        written_tokens: Tokens of all replies; None if an endpoint does not say.
        cost: Of the tokens that an endpoint read and wrote; None without prices for both.
        cut_off: Share of replies that did not end by themselves.
        seconds: How long playing took.
        path: The directory with the episodes.
    """

    model: str
    env: str
    split: str
    tasks: int
    episodes: int
    judged: int
    unscored: int
    success: Measured | None
    reward: Measured
    parts: Mapping[str, Measured]
    pass_at: Mapping[int, float]
    pass_hat: Mapping[int, float]
    maj_at: Mapping[int, float]
    unanswered: int | None
    no_reply: int
    reasons: Mapping[str, int]
    reply_tokens: float | None
    episode_tokens: float | None
    read_tokens: int | None
    written_tokens: int | None
    cost: float | None
    cut_off: float
    seconds: float
    path: str

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it: what is not known is null."""
        found: dict[str, Any] = _without_nan(asdict(self))
        return found


def summarise(subject: Subject, played: Played) -> Summary:
    """Return what the episodes of an evaluation come to."""
    tasks = played.tasks
    episodes = [episode for task in tasks for episode in task]
    replies = [reply for episode in episodes for reply in episode.replies]
    names = dict.fromkeys(name for episode in episodes for name in episode.parts if name != "success")
    declared = any("success" in episode.parts for episode in episodes)
    judged = [[said for one in task if (said := one.verdict) is not None] for task in tasks]
    tries = [(len(one), sum(one)) for one in judged] if declared else []
    answers = _answers(subject.env_id, tasks) if declared else None
    without_score = [episode for episode in episodes if episode.score is None]
    read = None if subject.endpoint.url is None else summed(reply.read for reply in replies)
    written = summed(episode.written_tokens for episode in episodes)
    return Summary(
        model=subject.label,
        env=subject.env_id,
        split=subject.asked.split,
        tasks=len(tasks),
        episodes=len(episodes),
        judged=sum(map(len, judged)),
        unscored=len(without_score),
        success=Measured(*share_of_tasks(judged), _spread(judged)) if declared else None,
        reward=_measured([[e.score for e in task if e.score is not None] for task in tasks]),
        parts={name: _measured([[e.parts[name] for e in task if name in e.parts] for task in tasks]) for name in names},
        pass_at=over_k(tries, pass_at_k),
        pass_hat=over_k(tries, pass_hat_k),
        maj_at={} if answers is None else _votes(answers, judged),
        unanswered=None if answers is None else sum(given is None for task in answers for given in task),
        no_reply=sum(episode.ending == "no_reply" for episode in episodes),
        reasons={example.splitlines()[0]: times for times, example in most_frequent(without_score)},
        reply_tokens=None if written is None else written / max(1, len(replies)),
        episode_tokens=None if written is None else written / max(1, len(episodes)),
        read_tokens=read,
        written_tokens=written,
        cost=subject.endpoint.cost(read, written),
        cut_off=sum(reply.finish_reason == "length" for reply in replies) / max(1, len(replies)),
        seconds=played.seconds,
        path=str(played.path),
    )


def _answers(env_id: str, tasks: Sequence[Sequence[Trajectory]]) -> list[list[str | None]] | None:
    """Return the answers of the episodes that have a verdict; None if the environment names none."""
    creator = load_env_creator(env_id)
    final_answer = getattr(creator, "final_answer", TextEnv.final_answer)
    if final_answer is TextEnv.final_answer:
        return None
    return [
        [final_answer(_last_reply(one)) if one.replies else None for one in task if one.verdict is not None]
        for task in tasks
    ]


def _last_reply(episode: Trajectory) -> str:
    return next(message.content for message in reversed(episode.messages) if message.role == "assistant")


def _votes(answers: Sequence[Sequence[str | None]], judged: Sequence[Sequence[bool]]) -> dict[int, float]:
    """Return maj@k, the mean over the tasks that were tried so often, for k in powers of two."""
    found = {}
    tasks = list(zip(answers, judged, strict=True))
    for k in powers_of_two(max((len(right) for right in judged), default=0)):
        values = [maj_at_k(given, right, k) for given, right in tasks if len(right) >= k]
        found[k] = sum(values) / len(values)
    return found


def _measured(tasks: Sequence[Sequence[float]]) -> Measured:
    """Return a mean with its interval: that of a share, if all values are 0 or 1."""
    if all(value in (0, 1) for task in tasks for value in task):
        return Measured(*share_of_tasks([[value == 1 for value in task] for task in tasks]), _spread(tasks))
    return Measured(*mean_of_tasks(tasks), _spread(tasks))


def _spread(tasks: Sequence[Sequence[float]]) -> float:
    values = [value for task in tasks for value in task]
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_nan(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value

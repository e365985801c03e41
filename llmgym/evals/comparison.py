"""`Comparison`: what two did differently at the same tasks, and how much of that is luck."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from llmgym.errors import ConfigError, DataError, RunDirectoryError, did_you_mean
from llmgym.evals.flips import Flip, divergence
from llmgym.evals.stored import Stored, TaskKey, first_words, in_words, tasks_in_words
from llmgym.paired import SignTest, bootstrap_interval, difference_seen, sign_flip_test, tasks_needed
from llmgym.rollout.trajectory import Trajectory
from llmgym.statistics import over_k, pass_at_k, pass_hat_k
from llmgym.train.checkpoints import checkpoints_of, run_and_step

_TOLD = (
    "weights",
    "model",
    "tasks",
    "samples",
    "output_dir",
    "date",
)  # of options that differ: told elsewhere, or no matter
_ROUNDED = 1e-12  # of two means: they are no further apart if it is rounding that parts them


@dataclass(frozen=True)
class Question:
    """What a comparison is asked.

    Attributes:
        metric: ``success``, ``reward`` or a part of the score; None for success, where it is declared, or else reward.
        difference: The difference that `Comparison.tasks_needed` is about; None for the one that is seen.
        confidence: Of the interval; a difference is seen if its p-value is below the rest.
        power: The probability with which `Comparison.tasks_needed` are enough.
        seed: Of resampling.
        show: Episodes that flipped: so many that were lost, and so many that were won.
    """

    metric: str | None = None
    difference: float | None = None
    confidence: float = 0.95
    power: float = 0.8
    seed: int = 0
    show: int = 2


@dataclass(frozen=True)
class Side:
    """One of two that are compared, at the tasks that both did.

    Attributes:
        name: What the user calls it.
        path: Where its episodes are.
        mean: Each task counts once.
        missing: Episodes without a value, which are left out.
        pass_at: By k: the probability that at least one of k tries succeeds; empty if no success is declared.
        pass_hat: By k: the probability that all of k tries succeed.
        alone: Tasks that only this one did.
    """

    name: str
    path: str
    mean: float
    missing: int
    pass_at: Mapping[int, float]
    pass_hat: Mapping[int, float]
    alone: tuple[TaskKey, ...]


@dataclass(frozen=True)
class Comparison:
    """What two did differently at the same tasks; a difference is the second minus the first.

    Attributes:
        metric: What is compared.
        declared: Whether successes are declared.
        first: The one that it is compared with.
        second: The one that is better if the difference is above 0.
        tasks: Tasks that are compared.
        samples: Episodes of a task, at most.
        unlike: Tasks that share a seed, or a row, and begin with different words, and so are left out.
        without_value: Tasks that are left out, because one of the two has no value for them.
        options: Options in which they differ, and their values.
        difference: The mean over tasks.
        low: The lower end of its bootstrap interval, clustered by task.
        high: The upper end.
        confidence: Of the interval.
        test: Whether there is a difference at all.
        found: Whether the test says so.
        wanted: The difference that the next number is about.
        tasks_needed: Tasks of as many samples, to find that difference with probability `power`.
        power: That probability.
        smallest_found: The difference that as many tasks as there are find with that probability.
        flips: Episodes that came out differently: those that were lost, and those that were won.
    """

    metric: str
    declared: bool
    first: Side
    second: Side
    tasks: int
    samples: int
    unlike: tuple[TaskKey, ...]
    without_value: tuple[TaskKey, ...]
    options: Mapping[str, tuple[Any, Any]]
    difference: float
    low: float
    high: float
    confidence: float
    test: SignTest
    found: bool
    wanted: float
    tasks_needed: float
    power: float
    smallest_found: float
    flips: tuple[Flip, ...]

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it: what is not known, or not finite, is null, and tasks are words."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


def compare(first: Stored, second: Stored, asked: Question) -> Comparison:
    """Compare two at the tasks that both did.

    Raises:
        ConfigError: Something that is asked for is not there.
        DataError: They have no task in common, or none with a value.
        RunDirectoryError: One is a whole run, whose weights changed from step to step.
    """
    first, second = _whatever_the_step(first), _whatever_the_step(second)
    both = [key for key in first.tasks if key in second.tasks]
    unlike = tuple(sorted(key for key in both if not _alike(first.tasks[key], second.tasks[key])))
    common = sorted(set(both) - set(unlike))
    options = _different(first, second)
    if not common:
        raise DataError(_nothing_in_common(first, second, unlike, options))
    metric, declared = _metric((first, second), common, asked.metric)
    means = [_means(side, common, metric) for side in (first, second)]
    valued = [key for key in common if all(key in those for those in means)]
    if not valued:
        raise DataError(f"No task has a {metric} on both sides: expected some that could be scored.")
    a, b = (np.array([those[key] for key in valued]) for those in means)
    apart = b - a
    apart[np.abs(apart) < _ROUNDED * np.maximum(np.abs(a), np.abs(b))] = 0.0  # equal samples in another order
    difference = float(apart.mean())
    samples = max(len(side.tasks[key]) for side in (first, second) for key in valued)
    low, high = bootstrap_interval(
        apart, extra=1 / samples if metric == "success" else None, confidence=asked.confidence, seed=asked.seed
    )
    test = sign_flip_test(apart, seed=asked.seed)
    wanted = difference if asked.difference is None else asked.difference
    return Comparison(
        metric=metric,
        declared=declared,
        first=_side(first, second, common, valued, metric, float(a.mean()), declared=declared),
        second=_side(second, first, common, valued, metric, float(b.mean()), declared=declared),
        tasks=len(valued),
        samples=samples,
        unlike=unlike,
        without_value=tuple(sorted(set(common) - set(valued))),
        options=options,
        difference=difference,
        low=low,
        high=high,
        confidence=asked.confidence,
        test=test,
        found=test.p < 1 - asked.confidence,
        wanted=wanted,
        tasks_needed=tasks_needed(apart, wanted, power=asked.power, confidence=asked.confidence),
        power=asked.power,
        smallest_found=difference_seen(apart, power=asked.power, confidence=asked.confidence),
        flips=tuple(_flips(first, second, dict(zip(valued, apart.tolist(), strict=True)), metric, asked.show)),
    )


def _whatever_the_step(side: Stored) -> Stored:
    """Return the episodes of one step, or of an evaluation, by tasks that are the same in another step."""
    if side.path == side.run:
        raise RunDirectoryError(
            f"{side.name!r}: expected RUN@STEP; a run keeps the episodes that it learnt from, of this one those of "
            f"{in_words('step', (step for step in side.files.values() if step is not None))}, and not those of its "
            f"evaluations, which `llmgym eval --model {side.name}` plays."
        )
    return replace(side, files=dict.fromkeys(side.files))


def value_of(episode: Trajectory, metric: str) -> float | None:
    """Return what an episode came to: its success, its reward, or a part of its score; None if that is missing."""
    if metric == "success":
        return None if episode.verdict is None else float(episode.verdict)
    return episode.score if metric == "reward" else episode.parts.get(metric)


def _means(side: Stored, keys: Sequence[TaskKey], metric: str) -> dict[TaskKey, float]:
    """Return the mean over the samples of each task, of those that have a value."""
    values = {key: [v for one in side.tasks[key] if (v := value_of(one, metric)) is not None] for key in keys}
    return {key: float(np.mean(known)) for key, known in values.items() if known}


def _side(
    side: Stored,
    other: Stored,
    common: Sequence[TaskKey],
    valued: Sequence[TaskKey],
    metric: str,
    mean: float,
    *,
    declared: bool,
) -> Side:
    verdicts = [[said for one in side.tasks[key] if (said := one.verdict) is not None] for key in valued]
    tries = [(len(one), sum(one)) for one in verdicts] if declared else []
    return Side(
        name=side.name,
        path=str(side.path),
        mean=mean,
        missing=sum(value_of(one, metric) is None for key in common for one in side.tasks[key]),
        pass_at=over_k(tries, pass_at_k),
        pass_hat=over_k(tries, pass_hat_k),
        alone=tuple(sorted(side.tasks.keys() - other.tasks.keys())),
    )


def _metric(sides: Sequence[Stored], keys: Sequence[TaskKey], asked: str | None) -> tuple[str, bool]:
    """Return what is compared, and whether successes are declared."""
    parts = [dict.fromkeys(name for key in keys for one in side.tasks[key] for name in one.parts) for side in sides]
    declared = any("success" in known for known in parts) and not any(_undeclared(side, keys) for side in sides)
    if asked is None:
        return "success" if declared else "reward", declared
    if asked not in {"reward", *(["success"] if declared else [])} and any(asked not in known for known in parts):
        known = ["reward", *(name for name in parts[0] if name in parts[1])]
        none = "no success is declared" if asked == "success" else f"{asked!r} is not what both have"
        raise ConfigError(f"metric: {none}; expected one of {', '.join(known)}.{did_you_mean(asked, known)}")
    return asked, declared


def _undeclared(side: Stored, keys: Sequence[TaskKey]) -> bool:
    """Return whether tasks came to their end without a word on success; where none did, nobody knows."""
    ended = [one for key in keys for one in side.tasks[key] if one.finished]
    return bool(ended) and not any("success" in one.parts for one in ended)


def _alike(first: Sequence[Trajectory], second: Sequence[Trajectory]) -> bool:
    """Return whether two tasks begin with the same words.

    Of several seats one may have heard what another one said before, and where nobody heard a word, none differs.
    """
    words = [next((said for one in episodes if (said := first_words(one))), None) for episodes in (first, second)]
    return first[0].seat > 0 or None in words or words[0] == words[1]


def _different(first: Stored, second: Stored) -> dict[str, tuple[Any, Any]]:
    """Return the options that both have and that differ, apart from where, when and how often something was done.

    A context that no conversation filled is no difference: a run writes down what its model takes, if that is less.
    """
    a, b = first.options, second.options
    told = {*_TOLD, *(["env"] if "env_id" in a and "env_id" in b else [])}
    found = {name: (a[name], b[name]) for name in a if name in b and name not in told and a[name] != b[name]}
    if "context_length" in found and not any(_filled(side, min(found["context_length"])) for side in (first, second)):
        del found["context_length"]
    return found


def _filled(side: Stored, context_length: int) -> bool:
    """Return whether a conversation took so many tokens, or ended because there was no more room."""
    episodes = [one for task in side.tasks.values() for one in task]
    return any(
        one.ending == "context" or any(row.stop - row.start >= context_length for row in one.rows) for one in episodes
    )


def _nothing_in_common(
    first: Stored, second: Stored, unlike: Sequence[TaskKey], options: Mapping[str, tuple[Any, Any]]
) -> str:
    if unlike:
        differing = ", ".join(f"{name} ({a!r} and {b!r})" for name, (a, b) in options.items())
        return f"The two have no task in common: {tasks_in_words(unlike)} begin with different words" + (
            f"; what differs is {differing}." if differing else "."
        )
    names = [side.name for side in (first, second)]
    models = f" --model {' '.join(names)}" if all(map(_has_checkpoint, (first, second))) else ""
    plays = "the weights after these steps" if models else "several models"
    return (
        f"The two have no task in common: {first.name!r} has {tasks_in_words(first.tasks)}, and {second.name!r} has "
        f"{tasks_in_words(second.tasks)}; `llmgym eval{models}` plays {plays} on the same tasks."
    )


def _has_checkpoint(side: Stored) -> bool:
    """Return whether there are weights of the end of a training step."""
    _, step = run_and_step(side.name)
    return side.run is not None and step in {one.step for one in checkpoints_of(side.run)}


def _flips(first: Stored, second: Stored, apart: Mapping[TaskKey, float], metric: str, show: int) -> Iterator[Flip]:
    """Yield a flip of each of `show` tasks that were lost, and of as many that were won; the furthest apart first."""
    for sign in (-1, 1):
        keys = sorted((key for key in apart if sign * apart[key] > 0), key=lambda key: (-abs(apart[key]), key))
        found = (_flip(key, first.tasks[key], second.tasks[key], metric, sign) for key in keys)
        yield from itertools.islice((one for one in found if one is not None), show)


def _flip(
    key: TaskKey, first: Sequence[Trajectory], second: Sequence[Trajectory], metric: str, sign: int
) -> Flip | None:
    """Return the first sample of a task that came out differently, in the direction of `sign`."""
    for sample, (one, other) in enumerate(zip(first, second, strict=False)):  # one may have more samples
        a, b = value_of(one, metric), value_of(other, metric)
        if a is not None and b is not None and sign * (b - a) > 0:
            return Flip(str(key), sample, a, b, divergence(one, other))
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, TaskKey):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

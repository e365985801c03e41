"""How much of a difference between two is luck, where both did the same tasks."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from llmgym.statistics import t_quantile

Differences = NDArray[np.float64]
"""One number per task: the mean of its samples in the second of the two minus that in the first.  [N]"""

_NORMAL = NormalDist()
_FEWEST = 5  # tasks that are resampled: fewer say nothing of how much tasks differ
_DRAWN = 2**22  # numbers drawn at once
_ALL_SIGNS = 16  # tasks that differ: of so many, every combination of signs is counted
_ALIKE = 1e-9  # of the largest difference: sums that are no further apart are the same


def bootstrap_interval(
    differences: Differences,
    *,
    extra: float | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    r"""Return the bootstrap interval of a mean difference, for which whole tasks are resampled.

    It is the expanded percentile interval (Hesterberg 2015, doi:10.1080/00031305.2015.1089789), whose tails are

    .. math:: \Phi\left(-\sqrt{n / (n - 1)} \; t_{n-1}\right)

    since the percentiles alone are too narrow where tasks are few. Where successes are compared, one more task that was
    won and one that was lost are resampled with the others (Bonett and Price 2012, doi:10.3102/1076998611411915):
    where few tasks differ, resampling would otherwise make do with the few flips that happened to be seen.

    Args:
        differences: Per task.
        extra: How much these two tasks differ: 1 where a task has one sample, 1/8 where it has eight. None if other
            numbers are compared.
        confidence: Probability that such intervals hold the truth.
        resamples: How often tasks are drawn.
        seed: Of the draws.

    Returns:
        Both ends; NaN for fewer than five tasks, or if nothing differs between tasks and nothing is known besides.
    """
    count = len(differences)
    tasks, largest = _in_units(differences if extra is None else np.append(differences, [extra, -extra]))
    if count < _FEWEST or np.ptp(tasks) < _ALIKE:
        return math.nan, math.nan
    values, times = np.unique(tasks.round(12), return_counts=True)
    random, shares = np.random.default_rng(seed), times / len(tasks)
    means = [
        random.multinomial(len(tasks), shares, drawn) @ values / len(tasks) for drawn in _in_turn(resamples, values)
    ]
    tail = _NORMAL.cdf(-math.sqrt(count / (count - 1)) * t_quantile(count - 1, (1 - confidence) / 2))
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail]) * largest
    mean = float(differences.mean())
    return min(float(low), mean), max(float(high), mean)


@dataclass(frozen=True)
class SignTest:
    """A two-sided test of whether tasks differ in neither direction.

    Attributes:
        won: Tasks that the second did better.
        lost: Tasks that the first did better.
        p: The mid-p value: the probability of a larger sum, and half that of the same one.
        p_exact: The probability of a sum as large as the one seen, or larger.
        enumerated: Whether all signs were counted, and not a sample of them.
    """

    won: int
    lost: int
    p: float
    p_exact: float
    enumerated: bool


def sign_flip_test(differences: Differences, *, resamples: int = 20_000, seed: int = 0) -> SignTest:
    """Test whether two differ, by the sum of differences against the sums that random signs give.

    If both are as good, which of them did better at a task is a coin's matter. The test flips whole tasks, and so
    allows for samples that go together. If every task that differs does so by the same amount, as with one sample per
    task, this is McNemar's test with its binomial distribution. Otherwise the sums of all signs are counted where at
    most 16 tasks differ, and signs are drawn where there are more.

    The exact p-value never finds too much, but too little: the sum takes few values. The mid-p value finds close
    to as much as it may (Fagerland, Lydersen and Laake 2013, doi:10.1186/1471-2288-13-91).

    Args:
        differences: Per task.
        resamples: How often signs are drawn, where they are.
        seed: Of the signs.

    Examples:
        >>> sign_flip_test(np.array([1.0, 1, 1, 1, 1, -1, 0, 0]))
        SignTest(won=5, lost=1, p=0.125, p_exact=0.21875, enumerated=True)
    """
    shares, _ = _in_units(differences)
    signed = shares[np.abs(shares) > _ALIKE]
    won, lost = int((signed > 0).sum()), int((signed < 0).sum())
    if not len(signed):
        return SignTest(0, 0, 1.0, 1.0, enumerated=True)
    sizes, times = np.unique(np.abs(signed).round(12), return_counts=True)
    if len(sizes) < 2:
        larger, same = _binomial_tails(won, lost)
        return SignTest(won, lost, larger + same / 2, larger + same, enumerated=True)
    seen = abs(float(signed.sum()))
    if len(signed) <= _ALL_SIGNS:
        all_sums = np.abs(
            functools.reduce(lambda sums, one: np.concatenate([sums + one, sums - one]), signed, np.zeros(1))
        )
        further, as_far = (all_sums > seen + _ALIKE).mean(), (all_sums > seen - _ALIKE).mean()
        return SignTest(won, lost, float(further + as_far) / 2, float(as_far), enumerated=True)
    random = np.random.default_rng(seed)
    sums = [(2 * random.binomial(times, 0.5, (n, len(sizes))) - times) @ sizes for n in _in_turn(resamples, sizes)]
    drawn = np.abs(np.concatenate(sums))
    larger, at_least = int((drawn > seen + _ALIKE).sum()), int((drawn > seen - _ALIKE).sum())
    exact = (1 + at_least) / (1 + resamples)  # the signs that were seen are one draw
    return SignTest(won, lost, (1 + (larger + at_least) / 2) / (1 + resamples), exact, enumerated=False)


def tasks_needed(differences: Differences, effect: float, *, power: float = 0.8, confidence: float = 0.95) -> float:
    r"""Return how many tasks it takes to see a difference, if tasks vary as these do.

    .. math:: (z_{1-\alpha/2} + z_{power})^2 \, s^2 / \delta^2 + z_{1-\alpha/2}^2 / 2

    The second term is what Student's t takes more than the normal distribution (Guenther 1981).

    Args:
        differences: Per task, of as many samples as those tasks would have.
        effect: The difference in the mean that is to be seen.
        power: The probability of seeing it.
        confidence: 1 minus the probability of seeing one where there is none.

    Returns:
        A whole number; infinity for no effect, and NaN if fewer than two tasks are known.
    """
    if len(differences) < 2:
        return math.nan
    if effect == 0:
        return math.inf
    beyond = _NORMAL.inv_cdf((1 + confidence) / 2)
    both = max(0.0, beyond + _NORMAL.inv_cdf(power))  # below the share of false alarms, any power is had for nothing
    spread = both * float(differences.std(ddof=1)) / effect
    needed = spread * spread + beyond**2 / 2
    return math.ceil(needed) if math.isfinite(needed) else needed


def difference_seen(differences: Differences, *, power: float = 0.8, confidence: float = 0.95) -> float:
    """Return the smallest difference that as many tasks are enough to see; the inverse of `tasks_needed`.

    It is NaN if there are too few tasks to see any.
    """
    beyond = _NORMAL.inv_cdf((1 + confidence) / 2)
    tasks = len(differences) - beyond**2 / 2
    if len(differences) < 2 or tasks <= 0:
        return math.nan
    return max(0.0, beyond + _NORMAL.inv_cdf(power)) * float(differences.std(ddof=1)) / math.sqrt(tasks)


def _in_units(differences: Differences) -> tuple[Differences, float]:
    """Return differences as shares of the largest one, so that rewards may have any unit, and the largest."""
    largest = float(np.abs(differences).max(initial=0.0)) or 1.0
    return differences / largest, largest


def _in_turn(resamples: int, values: Differences) -> Iterator[int]:
    """Yield how many resamples are drawn at once, so that they fit into memory."""
    at_once = max(1, _DRAWN // len(values))
    for start in range(0, resamples, at_once):
        yield min(at_once, resamples - start)


def _binomial_tails(won: int, lost: int) -> tuple[float, float]:
    """Return the probabilities that a fair coin is further from even than `won` to `lost`, and that it is as far."""
    tosses, more = won + lost, max(won, lost)
    ways = as_far = math.comb(tosses, more)
    further = 0
    for heads in range(more, tosses):
        ways = ways * (tosses - heads) // (heads + 1)
        further += ways
        if ways.bit_length() + tosses.bit_length() + 60 < further.bit_length():
            break  # all that is still to come changes no digit
    both = 1 if won == lost else 2
    return 2 * further / 2**tosses, both * as_far / 2**tosses

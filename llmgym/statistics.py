"""How much of a measured number is luck: intervals over tasks, and what several tries at a task amount to."""

import collections
import math
from collections.abc import Callable, Iterable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray


def pass_at_k(samples: int, successes: int, k: int) -> float:
    r"""Return the probability that at least one of `k` tries at a task succeeds, drawn from `samples` without repeats.

    .. math:: 1 - \binom{n - c}{k} \Big/ \binom{n}{k}

    Exact and unbiased (Chen et al. 2021, arXiv:2107.03374).

    Examples:
        >>> pass_at_k(4, 1, 1), pass_at_k(4, 1, 2), pass_at_k(4, 1, 4)
        (0.25, 0.5, 1.0)
    """
    return 1.0 - math.comb(samples - successes, k) / math.comb(samples, k)


def pass_hat_k(samples: int, successes: int, k: int) -> float:
    r"""Return the probability that all of `k` tries at a task succeed, drawn from `samples` without repeats.

    .. math:: \binom{c}{k} \Big/ \binom{n}{k}

    Of an agent that has to be relied on (Yao et al. 2024, arXiv:2406.12045).

    Examples:
        >>> pass_hat_k(4, 3, 1), pass_hat_k(4, 3, 2), pass_hat_k(4, 3, 4)
        (0.75, 0.5, 0.0)
    """
    return math.comb(successes, k) / math.comb(samples, k)


def maj_at_k(answers: Sequence[str | None], right: Sequence[bool], k: int) -> float:
    r"""Return the probability that most of `k` tries at a task give the right answer, drawn without repeats.

    An answer has most votes if each other one has fewer: where two are level, nobody has. Tries without an answer vote
    too, for none. Exact: with :math:`c_j` of n tries for answer j, the sum over right answers j and their votes t of

    .. math:: \binom{c_j}{t} \, [x^{k - t}] \prod_{i \ne j} \sum_{s < t} \binom{c_i}{s} x^s \Big/ \binom{n}{k}

    Args:
        answers: Of each try; None for a try that gave none.
        right: Whether each try succeeded; an answer is as right as its tries are on average.
        k: How many tries vote.

    Examples:
        >>> maj_at_k(["4", "4", "5"], [True, True, False], 3), maj_at_k(["4", "5"], [True, False], 2)
        (1.0, 0.0)
    """
    tries = collections.Counter(answers)
    won = 0.0
    for answer, count in tries.items():
        succeeded = sum(ok for given, ok in zip(answers, right, strict=True) if given == answer)
        if answer is None or not succeeded:
            continue
        others = [votes for other, votes in tries.items() if other != answer]
        ways = sum(math.comb(count, t) * _ways(others, k - t, t - 1) for t in range(1, min(k, count) + 1))
        won += succeeded / count * ways
    return won / math.comb(len(answers), k)


def _ways(counts: Sequence[int], draws: int, most: int) -> int:
    """Return how many ways there are to draw from so many of each kind, at most so many of one."""
    ways = [1] + [0] * draws
    for count in counts:
        chosen = [math.comb(count, s) for s in range(min(count, most, draws) + 1)]
        ways = [sum(c * ways[n - s] for s, c in enumerate(chosen) if s <= n) for n in range(draws + 1)]
    return ways[draws]


def powers_of_two(largest: int) -> list[int]:
    """Return the powers of two up to a number.

    Examples:
        >>> powers_of_two(8), powers_of_two(6)
        ([1, 2, 4, 8], [1, 2, 4])
    """
    return [2**power for power in range(largest.bit_length())]


def over_k(tries: Sequence[tuple[int, int]], estimate: Callable[[int, int, int], float]) -> dict[int, float]:
    """Return the mean over tasks of what `k` tries at each amount to, for k in powers of two.

    Args:
        tries: How often each task was tried, and how often with success; those tried less than k times do not count.
        estimate: `pass_at_k` or `pass_hat_k`.

    Examples:
        >>> over_k([(2, 1), (2, 2)], pass_at_k), over_k([(2, 1), (2, 2)], pass_hat_k)
        ({1: 0.75, 2: 1.0}, {1: 0.75, 2: 0.5})
    """
    found = {}
    for k in powers_of_two(max((count for count, _ in tries), default=0)):
        values = [estimate(count, successes, k) for count, successes in tries if count >= k]
        found[k] = sum(values) / len(values)
    return found


def mean_of_tasks(tasks: Iterable[Sequence[float]]) -> tuple[float, float, float]:
    """Return the mean over tasks of what was measured in each one's samples, and its 95 % interval.

    Samples of one task go together, so a task counts once, however many samples it has: the interval is that of
    the tasks' means (Student's t). It is NaN for fewer than two tasks.
    """
    means = _means(tasks)
    if len(means) < 2:
        return float(means.mean()) if len(means) else math.nan, math.nan, math.nan
    mean, half = float(means.mean()), t_quantile(len(means) - 1) * _error(means)
    return mean, mean - half, mean + half


def share_of_tasks(tasks: Iterable[Sequence[bool]]) -> tuple[float, float, float]:
    """Return the mean over tasks of the share of each one's samples that succeeded, and its 95 % interval.

    It is Wilson's interval; of several samples of a task, which go together and tell less, that of as many independent
    tries as tell as much. Without any task all three are NaN.

    Examples:
        >>> [round(number, 3) for number in share_of_tasks([[True]] * 45 + [[False]] * 5)]
        [0.9, 0.786, 0.957]
    """
    those = [list(map(float, samples)) for samples in tasks if len(samples)]
    if not those:
        return math.nan, math.nan, math.nan
    means, total = _means(those), sum(map(len, those))
    share, count = float(means.mean()), len(means)
    if total == count:
        return share, *wilson_interval(float(means.sum()), count)
    error = _error(means) if count > 1 else 0.0
    tries = share * (1 - share) / error**2 if error > 0 else total if 0 < share < 1 else count
    tries = min(max(tries, 1.0), float(total))
    return share, *wilson_interval(share * tries, tries, t_quantile(max(1, count - 1)))


def wilson_interval(successes: float, trials: float, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (Wilson 1927); 95 % for the default `z`.

    Examples:
        >>> [round(end, 3) for end in wilson_interval(45, 50)]
        [0.786, 0.957]
    """
    p = successes / trials
    centre = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))  # it has p in it, rounded too


def _means(tasks: Iterable[Sequence[float]]) -> NDArray[np.float64]:
    return np.array([np.mean(samples) for samples in tasks if len(samples)], dtype=np.float64)


def _error(means: NDArray[np.float64]) -> float:
    """Return the standard error of a mean."""
    return float(means.std(ddof=1)) / math.sqrt(len(means))


def t_quantile(freedom: int, tail: float = 0.025) -> float:
    """Return beyond what a share of Student's t lies, by its expansion in the degrees of freedom (Fisher 1926).

    Args:
        freedom: Degrees of freedom; at least 4 for a `tail` other than 2.5 %.
        tail: The share.

    Examples:
        >>> round(t_quantile(10), 4), round(t_quantile(10, 0.005), 3)
        (2.2281, 3.169)
    """
    if freedom < 4:  # where the expansion is off
        assert tail == 0.025
        return (12.706205, 4.302653, 3.182446)[freedom - 1]
    z = NormalDist().inv_cdf(1 - tail)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    more: float = sum(term / freedom**power for power, term in enumerate(terms, start=1))
    return z + more

"""The tasks that two runs both played, those first on which they differ most."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from llmgym.view.index import Array, Episodes
from llmgym.view.metrics import number
from llmgym.view.runs import Run


@dataclass(frozen=True)
class _Played:
    """A task in one run: where its most typical episode is, how many there are, and their means; a place per task."""

    typical: Array
    count: Array
    score: Array
    success: Array


def shared_tasks(first: Run, second: Run, start: int, count: int) -> dict[str, Any]:
    """Return a page of the tasks that both runs played, in the same seat and at the same step.

    Args:
        first: A run.
        second: The other one.
        start: How many tasks come before the page.
        count: How many it has.
    """
    one, other = first.index.episodes, second.index.episodes
    code = _codes(one, other)
    codes = code[: len(one)], code[len(one) :]
    both = np.intersect1d(*codes)
    left, right = (_played(run, own, both) for run, own in zip((one, other), codes, strict=True))
    difference = right.score - left.score
    order = np.lexsort((left.typical, -np.abs(np.nan_to_num(difference))))
    rows = [
        {
            "task": one.task(left.typical[at]),
            "difference": number(difference[at]),
            "sides": [_side(one, left, at), _side(other, right, at)],
        }
        for at in order[start : start + count]
    ]
    missing = [len(np.unique(own)) - len(both) for own in codes]
    return {"rows": rows, "from": start, "to": start + len(rows), "total": len(both), "missing": missing}


def _codes(one: Episodes, other: Episodes) -> Array:
    """Return a number per episode of both runs that is the same where step, seed, row and seat are."""
    code = np.zeros(len(one) + len(other), dtype=np.int64)
    for name in ("step", "seed", "data_row", "seat"):
        values = np.concatenate([getattr(one, name), getattr(other, name)])
        if len(values) and values.min() < values.max():
            known, place = np.unique(values, return_inverse=True)
            code = np.unique(code * len(known) + place, return_inverse=True)[1]
    return code


def _played(episodes: Episodes, own: Array, both: Array) -> _Played:
    chosen = np.flatnonzero(np.isin(own, both))
    of = np.searchsorted(both, own[chosen])
    size = len(both)
    score, success = (_means(values[chosen], of, size) for values in (episodes.score, episodes.success))
    from_mean = np.nan_to_num(np.abs(episodes.score[chosen] - score[of]), nan=np.inf)
    order = np.lexsort((chosen, from_mean, of))  # the nearest to the mean of its task comes first in it
    typical = chosen[order[np.searchsorted(of[order], np.arange(size))]]
    return _Played(typical, np.bincount(of, minlength=size), score, success)


def _means(values: Array, of: Array, size: int) -> Array:
    """Return the mean of the values of each task that are there; NaN if none is."""
    there = ~np.isnan(values)
    counts = np.bincount(of[there], minlength=size)
    sums = np.bincount(of[there], values[there], minlength=size)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _side(episodes: Episodes, played: _Played, at: int) -> dict[str, Any]:
    place = played.typical[at]
    return {
        "step": int(episodes.step[place]),
        "index": int(episodes.index[place]),
        "count": int(played.count[at]),
        "score": number(played.score[at]),
        "success": number(played.success[at]),
    }

"""What tokens can be coloured by: what the file of an episode holds, or what follows from it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from llmgym.view.advantages import advantages, from_a_group
from llmgym.view.index import Array, Episodes
from llmgym.view.metrics import number

_PUSH = (
    "The derivative of advantage × log p with respect to the logit of the sampled token, where p is its probability "
    "when it was sampled: how strongly the gradient pulls on it, and not how far p moves. It is near 0 for a token "
    "that was nearly certain."
)


def colours(row: Mapping[str, Any], at: int, episodes: Episodes, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what the sampled tokens of an episode can be coloured by.

    Args:
        row: Of its file.
        at: Where it is among the episodes.
        episodes: Of its run.
        config: The options of its run.

    Returns:
        For each a name, a title, a note that says what it is or why there is none, and a number per sampled token, or
        None.
    """
    mask = np.array(row["mask"], dtype=bool)
    log_probs = _of(row, "log_probs", mask)
    advantage, why = _advantage(row, at, episodes, config, mask)
    push = None if advantage is None or log_probs is None else advantage * -np.expm1(log_probs)
    learner = _of(row, "learner_log_probs", mask)
    mismatch = None if learner is None or log_probs is None else learner - log_probs
    return [
        _colour(
            "log_prob",
            "log-probability",
            log_probs,
            "Nobody sampled these tokens: they have none.",
            "Of the distribution that it was drawn from, in nats.",
        ),
        _colour("advantage", "advantage", advantage, why),
        _colour("push", "push: advantage × (1 − p)", push, _PUSH if push is not None else "It takes an advantage."),
        _colour(
            "entropy",
            "entropy",
            _of(row, "entropies", mask),
            "Not stored for this episode, but only for those that were learnt from.",
            "Of the distribution that the learner predicted when it first learnt from the token, in nats.",
        ),
        _colour(
            "mismatch",
            "mismatch of engine and learner",
            mismatch,
            "Not stored for this episode, but only for those that were learnt from in the first update of a step. The "
            "metrics mismatch/... are means over all.",
            "The learner's log-probability before it learnt from the token, minus the engine's, in nats.",
        ),
    ]


def _colour(name: str, title: str, values: Array | None, note: str, stored: str | None = None) -> dict[str, Any]:
    listed = None if values is None else [_short(value) for value in values]
    return {"name": name, "title": title, "values": listed, "note": note if values is None else stored or note}


def _short(value: float) -> float | None:
    """Return a number with as many digits as a page shows."""
    return None if number(value) is None else float(f"{value:.5g}")


def _of(row: Mapping[str, Any], name: str, mask: Array) -> Array | None:
    """Return what a column has for the sampled tokens; None if it has nothing, or only NaN."""
    values = row.get(name)
    if values is None or len(values) != len(mask):
        return None
    sampled = np.array(values, dtype=np.float64)[mask]
    return None if np.isnan(sampled).all() else sampled


def _advantage(
    row: Mapping[str, Any], at: int, episodes: Episodes, config: Mapping[str, Any], mask: Array
) -> tuple[Array | None, str]:
    """Return the advantage of each sampled token, and where it is from, or why there is none."""
    stored = _of(row, "advantages", mask)
    if stored is not None:
        return stored, "As the learner had it."
    estimator = from_a_group(config)
    if estimator is None:
        of = (
            f"estimator {config['advantage']!r} compares with the whole batch"
            if config.get("advantage")
            else "its algorithm compares no siblings"
        )
        return None, f"The advantage is not stored in this run's files, and cannot be computed from the group: {of}."
    found = of_group(estimator, at, episodes)[episodes.siblings(at) == at]
    note = (
        f"Computed from the scores of its group ({estimator}), since files do not store it: every sampled token of an "
        "episode has the same, and what was not sampled has none."
    )
    return np.repeat(found, mask.sum()), note


def of_group(estimator: str, at: int, episodes: Episodes) -> Array:
    """Return the advantages of the siblings of an episode, its own among them.  [G]"""
    siblings = episodes.siblings(at)
    return advantages(estimator, episodes.score[siblings], episodes.length[siblings].astype(np.float64))

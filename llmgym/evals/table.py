"""Summaries as tables."""

import math
from collections.abc import Sequence

from rich.console import Console

from llmgym.evals.summary import Measured, Summary
from llmgym.learn.needs import seconds_of
from llmgym.report.console import print_table

_LONGEST = 18  # characters of a model's name in a table
_END = 11  # of which these are its last ones, such as the time and the step of a run


def print_summaries(console: Console, summaries: Sequence[Summary]) -> None:
    """Print what evaluations came to, a row for each, and what the numbers are out of."""
    first = summaries[0]
    _say(console, f"{first.env}, split {first.split}: {first.tasks} tasks, {first.episodes} episodes of each model")
    names = labels_of([one.model for one in summaries])
    columns = [
        ("success (95 %)", ["-" if one.success is None else _with_interval(one.success) for one in summaries]),
        ("reward (95 %)", [_with_interval(one.reward) for one in summaries]),
        ("no score", [str(one.unscored) for one in summaries]),
        ("tokens", ["-" if one.episode_tokens is None else f"{one.episode_tokens:.1f}" for one in summaries]),
        ("cut off", [f"{one.cut_off:.1%}" for one in summaries]),
        ("time", [seconds_of(one.seconds) for one in summaries]),
    ]
    if any(one.cost is not None for one in summaries):
        columns.append(("cost", ["-" if one.cost is None else f"{one.cost:.4g}" for one in summaries]))
    print_table(console, "", "", names, columns)
    if any(len(one.pass_at) > 1 for one in summaries):
        _print_by_k(console, names, summaries)
    parts = list(dict.fromkeys(name for one in summaries for name in one.parts))
    if parts:
        rows = parts
        deviating = [[_deviating(one.parts.get(name)) for name in parts] for one in summaries]
        print_table(console, "", "part: mean ± deviation", rows, list(zip(names, deviating, strict=True)))
    for name, one in zip(names, summaries, strict=True):
        lost = one.episodes - one.judged
        without = f"; {lost} more have no verdict" if lost else ""
        verdict = (
            "the environment declares no success"
            if one.success is None
            else f"successes are of {one.judged} episodes{without}"
        )
        if one.unanswered:
            verdict += f"; episodes without an answer: {one.unanswered}"
        number = f"{name}: " if name.isdecimal() else ""
        _say(console, f"{number}{one.model}: {verdict}. Episodes: {one.path}")
        for reason, times in one.reasons.items():
            _say(console, f"{times} without a score: {reason}")


def labels_of(names: Sequence[str]) -> list[str]:
    """Return what models are called in tables: long names without their middle, or numbers where two would be alike.

    Examples:
        >>> labels_of(["tiny", "grpo-AIOpsTriage-v0-20261130-071829@8"])
        ['tiny', 'grpo-A…30-071829@8']
        >>> labels_of(["tiny", "tiny"])
        ['1', '2']
    """
    short = [one if len(one) <= _LONGEST else f"{one[: _LONGEST - _END - 1]}…{one[-_END:]}" for one in names]
    return short if len(set(short)) == len(short) else [str(number) for number in range(1, len(short) + 1)]


def _print_by_k(console: Console, names: Sequence[str], summaries: Sequence[Summary]) -> None:
    """Print what several tries at a task come to."""
    ks = list(dict.fromkeys(k for one in summaries for k in one.pass_at))
    voted = any(one.maj_at for one in summaries)
    kinds = [(f"pass@{k}", [one.pass_at.get(k) for one in summaries]) for k in ks]
    kinds += [(f"pass^{k}", [one.pass_hat.get(k) for one in summaries]) for k in ks]
    kinds += [(f"maj@{k}", [one.maj_at.get(k) for one in summaries]) for k in ks if voted and k > 2]  # none of 2 loses
    _say(
        console,
        "pass@k: one of k tries succeeds; pass^k: all do" + ("; maj@k: most give the right answer" if voted else ""),
    )
    columns = [(kind, ["-" if one is None else _number(one) for one in values]) for kind, values in kinds]
    print_table(console, "", "", names, columns)


def _say(console: Console, sentence: str) -> None:
    console.print(sentence, soft_wrap=True)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _with_interval(measured: Measured) -> str:
    interval = "" if math.isnan(measured.low) else f" ({measured.low:.3f} to {measured.high:.3f})"
    return _number(measured.mean) + interval


def _deviating(measured: Measured | None) -> str:
    return "-" if measured is None else f"{_number(measured.mean)} ± {_number(measured.spread)}"

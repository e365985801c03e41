"""Summaries as tables."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from llmgym.evals.summary import Measured, Summary
from llmgym.learn.needs import seconds_of
from llmgym.report.visible import visible


def print_summaries(console: Console, summaries: Sequence[Summary]) -> None:
    """Print what evaluations came to, a row for each, and what the numbers are out of."""
    first = summaries[0]
    table = _table(
        "", f"{first.env}, split {first.split}: {first.tasks} tasks, {first.episodes} episodes of each model"
    )
    priced = any(one.cost is not None for one in summaries)
    costs = ("cost",) if priced else ()
    for column in ("success (95 %)", "reward (95 %)", "no score", "tokens", "cut off", "time", *costs):
        table.add_column(column, justify="right", no_wrap=True)
    for one in summaries:
        table.add_row(
            escape(visible(one.model)),
            "-" if one.success is None else _with_interval(one.success),
            _with_interval(one.reward),
            str(one.unscored),
            "-" if one.episode_tokens is None else f"{one.episode_tokens:.1f}",
            f"{one.cut_off:.1%}",
            seconds_of(one.seconds),
            *(["-" if one.cost is None else f"{one.cost:.4g}"] if priced else []),
        )
    console.print(table)
    if any(len(one.pass_at) > 1 for one in summaries):
        _print_by_k(console, summaries)
    names = list(dict.fromkeys(name for one in summaries for name in one.parts))
    if names:
        parts = _table("part: mean ± deviation", "")
        for one in summaries:
            parts.add_column(escape(visible(one.model)), justify="right", no_wrap=True)
        for name in names:
            parts.add_row(escape(visible(name)), *(_deviating(one.parts.get(name)) for one in summaries))
        console.print(parts)
    for one in summaries:
        lost = one.episodes - one.judged
        without = f"; {lost} more have no verdict" if lost else ""
        verdict = (
            "the environment declares no success"
            if one.success is None
            else f"successes are of {one.judged} episodes{without}"
        )
        if one.unanswered:
            verdict += f"; episodes without an answer: {one.unanswered}"
        console.print(visible(f"{one.model}: {verdict}. Episodes: {one.path}"), soft_wrap=True, markup=False)
        for reason, times in one.reasons.items():
            console.print(visible(f"{times} without a verdict: {reason}"), soft_wrap=True, markup=False)


def _print_by_k(console: Console, summaries: Sequence[Summary]) -> None:
    """Print what several tries at a task come to."""
    ks = list(dict.fromkeys(k for one in summaries for k in one.pass_at))
    columns = [(f"pass{sign}", k) for sign in "@^" for k in ks]
    voted = any(one.maj_at for one in summaries)
    columns += [("maj@", k) for k in ks if voted and k > 2]  # of two, none is outvoted
    title = "pass@k: one of k tries succeeds; pass^k: all do" + ("; maj@k: most give the right answer" if voted else "")
    table = _table("", title)
    for name, k in columns:
        table.add_column(f"{name}{k}", justify="right", no_wrap=True)
    for one in summaries:
        values = {"pass@": one.pass_at, "pass^": one.pass_hat, "maj@": one.maj_at}
        numbers = (_number(values[name].get(k, math.nan)) for name, k in columns)
        table.add_row(escape(visible(one.model)), *numbers)
    console.print(table)


def _table(first: str, title: str) -> Table:
    table = Table(title=escape(title) or None, title_justify="left")
    table.add_column(first, no_wrap=True)
    return table


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _with_interval(measured: Measured) -> str:
    interval = "" if math.isnan(measured.low) else f" ({measured.low:.3f} to {measured.high:.3f})"
    return _number(measured.mean) + interval


def _deviating(measured: Measured | None) -> str:
    return "-" if measured is None else f"{_number(measured.mean)} ± {_number(measured.spread)}"

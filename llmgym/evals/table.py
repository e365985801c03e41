"""Summaries as tables."""

import math
from collections.abc import Mapping, Sequence

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
    for column in ("success (95 %)", "reward (95 %)", "no score", "tokens", "cut off", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in summaries:
        table.add_row(
            escape(visible(one.model)),
            "-" if one.success is None else _with_interval(one.success),
            _with_interval(one.reward),
            str(one.unscored),
            f"{one.episode_tokens:.1f}",
            f"{one.cut_off:.1%}",
            seconds_of(one.seconds),
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
        without = (
            f"; {lost} more have no verdict, because their environment failed or nobody could score them"
            if lost
            else ""
        )
        verdict = (
            "the environment declares no success"
            if one.success is None
            else f"successes are of {one.judged} episodes{without}"
        )
        console.print(f"{visible(one.model)}: {verdict}. Episodes: {one.path}", soft_wrap=True, markup=False)


def _print_by_k(console: Console, summaries: Sequence[Summary]) -> None:
    """Print what several tries at a task come to."""
    table = _table("", "pass@k: one of k tries succeeds; pass^k: all do")
    ks = list(dict.fromkeys(k for one in summaries for k in one.pass_at))
    for sign in "@^":
        for k in ks:
            table.add_column(f"pass{sign}{k}", justify="right", no_wrap=True)
    for one in summaries:
        values: list[Mapping[int, float]] = [one.pass_at, one.pass_hat]
        table.add_row(escape(visible(one.model)), *(_number(of.get(k, math.nan)) for of in values for k in ks))
    console.print(table)


def _table(first: str, title: str) -> Table:
    table = Table(title=escape(title) or None, title_justify="left")
    table.add_column(first)
    return table


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _with_interval(measured: Measured) -> str:
    interval = "" if math.isnan(measured.low) else f" ({measured.low:.3f} to {measured.high:.3f})"
    return _number(measured.mean) + interval


def _deviating(measured: Measured | None) -> str:
    return "-" if measured is None else f"{_number(measured.mean)} ± {_number(measured.spread)}"

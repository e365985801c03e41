"""A comparison as a table, in sentences, and side by side."""

import math
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmgym.evals.comparison import Comparison, Side
from llmgym.evals.flips import Divergence, Flip
from llmgym.evals.stored import tasks_in_words
from llmgym.visible import visible

_BEFORE, _AFTER = 160, 400  # characters shown of a message, before and after two begin to differ
_OPTIONS = 6  # that are shown of those that differ


def print_comparison(console: Console, found: Comparison) -> None:
    """Print what two came to, how much of their difference is luck, and what flipped."""
    for letter, side in (("A", found.first), ("B", found.second)):
        _say(console, f"{letter}: {side.name}")
    _say(console, f"{_tasks(found.tasks)} that both did, {_samples(found.samples)}")
    table = Table()
    for column in ("", "A", "B", f"B - A ({_percent(found.confidence)})"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    interval = "" if math.isnan(found.low) else f" ({found.low:+.3f} to {found.high:+.3f})"
    table.add_row(
        found.metric,
        _number(found.first.mean),
        _number(found.second.mean),
        f"{found.difference:+.3f}{interval}",
    )
    of_what = "" if found.metric == "success" else " of success"
    for sign in "@^":
        for k, (a, b) in _by_k(found, sign).items():
            table.add_row(f"pass{sign}{k}{of_what}", _number(a), _number(b), f"{b - a:+.3f}")
    console.print(table)
    for sentence in _sentences(found):
        _say(console, sentence)
    for flip in found.flips:
        _print_flip(console, found.metric, flip)


def _samples(count: int) -> str:
    return "one sample of each" if count == 1 else f"at most {count} samples of each"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _sentences(found: Comparison) -> Iterator[str]:
    """Yield what there is to say of a difference."""
    test = found.test
    if not test.enumerated:
        name = "signs of whole tasks flipped at random"
    elif found.metric == "success" and found.samples == 1:
        name = "McNemar's test"
    else:
        name = "signs of whole tasks flipped"
    better = f"B did better at {_tasks(test.won)}, and A at {test.lost}"
    level = f"at {_percent(1 - found.confidence)} "
    verdict = (
        f"{level}a difference is seen"
        if found.found
        else f"{level}no difference is seen, which does not mean that there is none"
    )
    if found.first.path == found.second.path:
        yield "A and B are the same episodes."
    elif test.won == test.lost == 0:
        yield f"A and B came to the same {found.metric} at every task."
    else:
        yield f"{better}: p {_p(test.p)}, exact p {_p(test.p_exact)} ({name}); {verdict}."
    enough = (
        f"; these {found.tasks} are enough for one of {found.smallest_found:.3f}" if found.smallest_found > 0 else ""
    )
    if math.isfinite(found.tasks_needed):
        yield (
            f"To see a difference of {abs(found.wanted):.3f} with a probability of {_percent(found.power)} takes "
            f"{found.tasks_needed:,.0f} such tasks{enough}."
        )
    elif enough:
        yield f"The two came to the same{enough} with a probability of {_percent(found.power)}."
    if not found.declared:
        yield "Success is not declared on both sides, so there is no pass@k."
    for letter, side in (("A", found.first), ("B", found.second)):
        yield from _left_out(letter, side)
    if found.unlike:
        yield f"Left out, because they begin with different words: {tasks_in_words(found.unlike)}."
    if found.without_value:
        yield f"Left out, because one of the two has no {found.metric}: {tasks_in_words(found.without_value)}."
    if found.options:
        shown = [f"{name} ({a!r} and {b!r})" for name, (a, b) in found.options.items()]
        yield f"Played with different options: {', '.join(shown[:_OPTIONS])}" + (
            f", and {len(shown) - _OPTIONS} more." if len(shown) > _OPTIONS else "."
        )


def _tasks(count: int) -> str:
    return f"{count} task{'s' * (count != 1)}"


def _left_out(letter: str, side: Side) -> Iterator[str]:
    if side.alone:
        yield f"Left out, because {letter} alone did them: {tasks_in_words(side.alone)}."
    if side.missing:
        yield f"{side.missing} episodes of {letter} are without a value, and left out."


def _by_k(found: Comparison, sign: str) -> Mapping[int, tuple[float, float]]:
    """Return pass@k or pass^k of both, for every k above 1."""
    first, second = (side.pass_at if sign == "@" else side.pass_hat for side in (found.first, found.second))
    return {k: (first[k], second[k]) for k in first if k > 1 and k in second}


def _print_flip(console: Console, metric: str, flip: Flip) -> None:
    way = "won" if flip.second > flip.first else "lost"
    where = "Both say the same" if flip.divergence is None else f"They part at {_place(flip.divergence)}"
    console.print()
    _say(console, f"{flip.task}, sample {flip.sample}: B {way}, {metric} {flip.first:g} and {flip.second:g}. {where}:")
    if flip.divergence is not None:
        table = Table(expand=True)
        for letter in "AB":
            table.add_column(letter, ratio=1)
        table.add_row(
            *(_side(flip.divergence.before, rest) for rest in (flip.divergence.first, flip.divergence.second))
        )
        console.print(table)


def _place(at: Divergence) -> str:
    if at.reply is None:
        return "what the environment says there"
    return f"reply {at.reply}" if at.token is None else f"token {at.token} of reply {at.reply}"


def _side(before: str, rest: str | None) -> Text:
    """Return what a message says, dim as far as both say it; its middle is cut out if it is long."""
    cut = "…" if len(before) > _BEFORE else ""
    shown = Text(visible(cut + before[-_BEFORE:]), style="dim")
    if rest is None:
        return shown.append("(it is over)", style="not dim italic")
    return shown.append(visible(rest[:_AFTER]) + ("…" if len(rest) > _AFTER else ""), style="not dim bold")


def _say(console: Console, sentence: str) -> None:
    console.print(sentence, soft_wrap=True)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"= {value:.4f}"

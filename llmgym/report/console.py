"""What a training run prints: at most ten rows, now and then a conversation, and a table at the end."""

from __future__ import annotations  # what a run reports is not imported here: `--help` is instant

import functools
import math
import os
import select
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmgym.report.metrics import metric_of
from llmgym.visible import visible

if TYPE_CHECKING:
    from llmgym.evaluate import Evaluation
    from llmgym.rollout.trajectory import Trajectory

Given = ParamSpec("Given")

ROWS = 10
"""Rows of progress that a run prints, at most, however long it is."""

_PARTS_SHOWN = 4  # named parts of the score in the last table

_COLUMNS = {
    "loss": "{:7.4f}",
    "accuracy": "{:8.3f}",
    "reward": "{:6.3f}",
    "success": "{:7.1%}",
    "entropy": "{:7.3f}",
    "kl": "{:6.3f}",
    "untrained": "{:9.1%}",
    "reply_tokens": "{:12.1f}",
    "tokens_per_second": "{:8.0f}",
    "seconds": "{:6.2f}",
}
"""The metrics shown, as far as there are any, and the format of each; `llmgym.report.metrics` has their titles."""

_IF_ANY = ("untrained",)  # columns that say nothing while they are 0


class PlainConsole(Console):
    """A console that prints every string as the text that it is, whoever wrote it.

    Characters that could take over a terminal are spelt out, those that the stream has no bytes for too, and nothing is
    taken for markup or for the code of an emoji. What is to have a style is a `rich.text.Text`, see `said`.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as text."""
        shown = visible(text).encode(self.encoding, "backslashreplace").decode(self.encoding)
        return super().render_str(shown, **{**options, "markup": False, "emoji": False})

    def on_broken_pipe(self) -> None:
        """Leave it to the command to end as others do when nobody reads on."""
        raise BrokenPipeError


def make_console(*, stderr: bool = False) -> PlainConsole:
    """Return a console as wide as the terminal; a log, which has no width of its own, has at least 110 columns."""
    console = PlainConsole(highlight=False, stderr=stderr)
    if not console.is_terminal:
        console.width = max(console.width, 110)
    return console


def say(sentence: str, *, stderr: bool = False) -> None:
    """Print lines as they are, however long they are."""
    make_console(stderr=stderr).print(sentence, soft_wrap=True)


def while_read(command: Callable[Given, int]) -> Callable[Given, int]:
    """Let a command end without a word when whoever reads its output, such as ``head``, has seen enough.

    The exit code is 141 then, as a shell says of whatever SIGPIPE ends.
    """

    @functools.wraps(command)
    def run(*given: Given.args, **options: Given.kwargs) -> int:
        try:
            try:
                return command(*given, **options)
            finally:  # also after `--help`, which ends the process
                if sys.stdout is not None:  # it was closed before the process began
                    sys.stdout.flush()
        except BrokenPipeError:
            if sys.stdout is None or not _nobody_reads(sys.stdout.fileno()):
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be written
            return 141

    return run


def _nobody_reads(pipe: int) -> bool:
    polled = select.poll()
    polled.register(pipe, 0)
    return bool(polled.poll(0))  # which tells of errors and of the other end's absence alone


def said(console: Console, who: str, what: str) -> Text:
    """Return what somebody says in a conversation, after a name in bold."""
    return Text.assemble((who, "bold"), "  ", console.render_str(what))


_LONGEST = 5000  # characters of a sentence


def notify(sentence: str, *, warning: bool = True) -> None:
    """Print what a user has to know, in yellow if it is a warning."""
    make_console().print(sentence[:_LONGEST], style="yellow" if warning else None, soft_wrap=True)


def print_table(
    console: Console, title: str, corner: str, names: Sequence[str], columns: Sequence[tuple[str, Sequence[str]]]
) -> None:
    """Print a table whose cells are never cut: columns that do not fit beside the others follow in another table.

    Args:
        console: Where; as wide as a table may be.
        title: Above the first table.
        corner: The title of the names.
        names: What the rows are about.
        columns: The title of each, and its cells.
    """
    names_width = _width(corner, *names) + 4  # with a line on both sides, and a space beside each
    parts: list[list[tuple[str, Sequence[str]]]] = []
    room = 0
    for heading, cells in columns:
        width = _width(heading, *cells) + 3
        if not parts or width > room:
            parts.append([])
            room = console.width - names_width
        parts[-1].append((heading, cells))
        room -= width
    for part in parts:
        table = Table(title=title or None)
        table.add_column(corner, overflow="fold")
        for heading, _ in part:
            table.add_column(heading, justify="right", no_wrap=True)
        for name, *row in zip(names, *(cells for _, cells in part), strict=True):
            table.add_row(name, *row)
        console.print(table)
        title = ""


def _width(*texts: str) -> int:
    """Return how many columns the widest of some texts takes."""
    return max(cell_len(visible(text)) for text in texts)


class Progress:
    """Prints a run as it goes on, the same to a terminal and to a log.

    Args:
        steps: How many there will be.
        console: Where to print.
    """

    def __init__(self, steps: int, console: Console) -> None:
        self.steps = steps
        self.console = console
        self._since: list[Mapping[str, float]] = []  # metrics of the steps since the last row
        self._printed = 0
        self._columns: dict[str, str] = {}

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take a step's metrics; print the means since the last row when a row is due."""
        self._since.append(metrics)
        if any(name not in self._columns and _tells(name, metrics) for name in _COLUMNS):
            self._header(metrics)
        rows = min(ROWS, self.steps)
        if step < (self._printed + 1) * self.steps / rows:
            return
        means = {name: _mean([m[name] for m in self._since if name in m]) for name in self._columns}
        cells = "  ".join(form.format(means[name]) for name, form in self._columns.items())
        left = means["seconds"] * (self.steps - step)
        self.console.print(f"{f'{step}/{self.steps}':>9}  {cells}  {left:7.0f} s", soft_wrap=True)
        self._since, self._printed = [], self._printed + 1

    def _header(self, metrics: Mapping[str, float]) -> None:
        """Print the titles of the columns for which this step, or one before it, has a metric."""
        self._columns = {
            name: form for name, form in _COLUMNS.items() if name in self._columns or _tells(name, metrics)
        }
        titles = "  ".join(f"{_title(name):>{len(form.format(0))}}" for name, form in self._columns.items())
        self.console.print(f"{'step':>9}  {titles}  time left", style="bold", soft_wrap=True)

    def conversation(self, step: int, trajectory: Trajectory) -> None:
        """Print one whole episode."""
        score = "no score" if trajectory.score is None else f"reward {trajectory.score:.3f}"
        self.console.rule(f"a conversation of step {step}: seed {trajectory.seed}, {score}", style="dim")
        for message in trajectory.messages:
            style = "green" if message.role == "assistant" else "default"
            self.console.print(said(self.console, message.role, message.content), style=style, soft_wrap=True)
        self.console.rule(style="dim")


def _title(name: str) -> str:
    metric = metric_of(name)
    return name if metric is None else metric.title


def _tells(name: str, metrics: Mapping[str, float]) -> bool:
    return name in metrics and not (name in _IF_ANY and metrics[name] == 0)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def print_evaluations(console: Console, evaluations: Mapping[str, Evaluation]) -> None:
    """Print a table of at most ten evaluations, one per row: the first, the last, and some that are evenly apart."""
    labels = list(evaluations)
    shown = min(ROWS, len(labels))
    chosen = [labels[round(place * (len(labels) - 1) / max(1, shown - 1))] for place in range(shown)]
    evaluations = {label: evaluations[label] for label in chosen}
    first = next(iter(evaluations.values()))
    those = evaluations.values()
    columns = [
        (first.measure, [f"{one.success:.3f}" for one in those]),
        ("95 % interval", [f"{one.success_low:.3f} to {one.success_high:.3f}" for one in those]),
        ("reward", [f"{one.reward:.3f}" for one in those]),
    ]
    if any(one.missing for one in those):
        columns.append(("no score", [str(one.missing) for one in those]))
    for name in [name for name in first.parts if name != "success"][:_PARTS_SHOWN]:
        columns.append((name, [f"{one.parts.get(name, math.nan):.3f}" for one in those]))
    print_table(console, f"{first.episodes} held-out {first.unit}", "", list(evaluations), columns)

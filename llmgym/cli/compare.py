"""``llmgym compare``: whether one did better than another at the same tasks, and how much of that is luck."""

import argparse
import json
import math

from llmgym import evals
from llmgym.cli.options import Commands, share, whole
from llmgym.report.console import make_console

_SMALLEST = 1e-9  # difference that somebody can mean

_EPILOG = """A and B are directories of episodes that `llmgym eval` keeps, or RUN@STEP: the episodes that a run learnt
from in that step, played by the weights before its update. Tasks are the same if their seeds are, or the rows of the
data. B - A above 0 means that B is better. The exit code is 0, whatever comes out, or 2 for a mistake that the message
explains."""


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "compare", help="compare two evaluations, or steps of runs, at the same tasks", epilog=_EPILOG
    )
    parser.add_argument("first", metavar="A", help="what it is compared with: a directory of episodes, or RUN@STEP")
    parser.add_argument("second", metavar="B", help="what is better or worse: likewise")
    parser.add_argument(
        "--metric", help="success, reward or a part of the score (default: success, or reward where none is declared)"
    )
    parser.add_argument(
        "--difference",
        type=_difference,
        help="how many tasks does it take to see this one? (default: that found)",
    )
    parser.add_argument("--show", type=whole, default=2, help="flips shown: so many lost, and so many won (default: 2)")
    parser.add_argument("--confidence", type=share, default=0.95, help="of the interval (default: 0.95)")
    parser.add_argument(
        "--power", type=share, default=0.8, help="probability of seeing a difference that is there (default: 0.8)"
    )
    parser.add_argument(
        "--seed", type=whole, default=0, help="of the bootstrap, and of signs that are drawn (default: 0)"
    )
    parser.add_argument("--json", action="store_true", help="print the result alone, as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compare; returns the exit code."""
    asked = evals.Question(**{name: getattr(options, name) for name in evals.Question.__dataclass_fields__})
    found = evals.compare(evals.stored(options.first), evals.stored(options.second), asked)
    if options.json:
        print(json.dumps(found.plain(), indent=2))
    else:
        evals.print_comparison(make_console(), found)
    return 0


def _difference(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not _SMALLEST <= abs(value) < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number other than 0, such as 0.05, got {text!r}")
    return value

"""The options that several commands have."""

import argparse
import contextlib
import math
import sys
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

from llmgym.config.command_line import parse_pairs
from llmgym.errors import ConfigError

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # which argparse has no public name for


EPISODES = """SOURCE is a directory of episodes that `llmgym eval` keeps, RUN, or RUN@STEP: the episodes that a run
learnt from in all its steps, or in that one, which the weights before the step's update played. """
"""What is told about commands that read stored episodes."""

_MOST = 2**63 - 1


def add_environment(parser: argparse.ArgumentParser, *, seeds: int | None = None) -> None:
    """Add what says which environment is meant, and how many of its tasks are played, if some are."""
    parser.add_argument("env", help="an id, such as MyEnv-v0, package.module:MyEnv-v0 or reasoning_gym:chain_sum")
    parser.add_argument(
        "--env-kwargs",
        nargs="*",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="arguments of the environment, as training takes them",
    )
    if seeds is not None:
        parser.add_argument("--seeds", type=count, default=seeds, help=f"tasks to play (default: {seeds})")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add what asks for a result that programs read."""
    parser.add_argument("--json", action="store_true", help="print the result alone as JSON; the rest goes to stderr")


def prints_apart(*, as_json: bool) -> AbstractContextManager[object]:
    """Send to stderr what environments and scorers print meanwhile, if the result alone is to be on stdout."""
    return contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout)


def env_kwargs(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of the environment.

    Raises:
        ConfigError: A word is not ``key=value``.
    """
    try:
        return parse_pairs(options.env_kwargs)
    except ValueError as error:
        raise ConfigError(f"--env-kwargs: {error}") from error


def count(text: str) -> int:
    """Return a whole number of at least 1 from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return whole(text)


def whole(text: str) -> int:
    """Return a whole number of at least 0 from the command line."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    if int(text) > _MOST:
        raise argparse.ArgumentTypeError(f"expected a whole number of at most {_MOST:,}, got {text}")
    return int(text)


def share(text: str) -> float:
    """Return a number between 0 and 1, and neither of them, from the command line."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1 - 1e-15:  # what is closer to 1 has no quantile
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, got {text!r}")
    return value


def first_sentence(documented: object) -> str:
    """Return the first sentence of a docstring of its own, on one line; empty if it has none.

    Examples:
        >>> def brief(episode):
        ...     '''Pay for short
        ...     replies. Long ones earn less.'''
        >>> first_sentence(brief)
        'Pay for short replies.'
    """
    text = " ".join((getattr(documented, "__doc__", None) or "").split("\n\n")[0].split())
    sentence, stop, _ = text.partition(". ")
    return sentence + stop.rstrip()


def port(text: str) -> int:
    """Return a word of the command line as a port to listen on."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text!r}")
    return int(text)

"""`main`: which command is meant."""

import argparse
import ast
import importlib
import pkgutil
import site
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import llmgym.agents
from llmgym.errors import LLMGymError, bad_paths_refused, did_you_mean
from llmgym.report.console import say, while_read
from llmgym.version import __version__
from llmgym.visible import visible

COMMANDS = (
    *("init", "envs", "scorers", "check", "audit", "compare", "view", "report", "score", "export", "play"),
    *("serve-env", "doctor"),
)
"""The commands with options of their own: each is a file beside this one, imported when it is asked for."""


def agents() -> list[str]:
    """Return every algorithm's module in `llmgym.agents`."""
    return [module.name for module in pkgutil.iter_modules(llmgym.agents.__path__)]


@while_read
def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``llmgym``.

    Returns:
        The exit code: 0, 1 if something was looked into and is not as it should be, 2 for a mistake that the message
        explains.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    _search_here()
    if words and words[0] in agents():
        return int(importlib.import_module(f"llmgym.agents.{words[0]}").main(words[1:]))
    if words[:1] == ["eval"]:
        return int(_module("evaluate").run(words[1:]))
    if words[:1] == ["train"] and len(words) > 1 and not words[1].startswith("-"):
        return int(_module("train").run(words[1], words[2:]))
    options = make_parser(words[0] if words and words[0] in COMMANDS else None).parse_args(words)
    try:
        with bad_paths_refused():
            return int(options.run(options))
    except LLMGymError as error:
        say(f"llmgym {options.command}: {error}", stderr=True)
        return 2
    except KeyboardInterrupt:
        say(f"llmgym {options.command}: interrupted", stderr=True)
        return 130


def _search_here() -> None:
    """Let `my_module:MyEnv-v0` be found in the current directory: before packages, but after the standard library.

    A file called ``queue.py`` or ``statistics.py`` then breaks no import that is still to come.
    """
    packages = {*site.getsitepackages(), site.getusersitepackages()}
    first = next((i for i, place in enumerate(sys.path) if place in packages), len(sys.path))
    sys.path.insert(first, "")


def _module(name: str) -> Any:
    """Import the file of a command."""
    return importlib.import_module(f"llmgym.cli.{name.replace('-', '_')}")


def _title(agent: str) -> str:
    """Return the first line of what an algorithm's module says of itself; importing it would take longer."""
    source = Path(llmgym.agents.__path__[0], f"{agent}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]


class _Parser(argparse.ArgumentParser):
    """Ends with what is wrong with a command line, in characters that a terminal may be given."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse what a command does not know itself, with its own usage and not that of all commands."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            hint = did_you_mean(unknown[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}.{hint}")
        return found, unknown

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        super().exit(status, message and visible(message))


def make_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of all commands, or of one of `COMMANDS` alone, which imports no other.

    Algorithms and ``eval`` have no more than a title in it.
    """
    parser: argparse.ArgumentParser = _Parser(
        prog="llmgym", description="Train language models to act over several turns."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS if only is None else [only]:
        _module(name).add_to(commands)
    if only is None:
        for name in agents():
            commands.add_parser(name, help=_title(name).replace("%", "%%"), add_help=False)
        for name in ("train", "evaluate"):
            _module(name).add_to(commands)
    return parser

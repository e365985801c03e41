"""The console script ``llmgym``."""

import argparse
import ast
import importlib
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path

import gymnasium

import llmgym.agents
from llmgym.envs.checker import check_env
from llmgym.errors import ConfigError, LLMGymError, import_user_module
from llmgym.registry import registered_envs, resolve_env
from llmgym.train.agent import Agent, run_command
from llmgym.version import __version__

_ALGORITHM = "path/to/file.py:Class or package.module:Class"


def agents() -> list[str]:
    """Return every algorithm's module in `llmgym.agents`."""
    return [module.name for module in pkgutil.iter_modules(llmgym.agents.__path__)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``llmgym``; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.path.insert(0, "")  # so that `my_module:MyEnv-v0` is found in the current directory
    if words and words[0] in agents():
        return int(importlib.import_module(f"llmgym.agents.{words[0]}").main(words[1:]))
    if words[:1] == ["train"] and len(words) > 1 and not words[1].startswith("-"):
        return _train(words[1], words[2:])
    options = _parser().parse_args(words)
    try:
        if options.command == "envs":
            print("\n".join(registered_envs()))
        elif options.command == "check":
            env = gymnasium.make(resolve_env(options.env), disable_env_checker=True)
            check_env(env)
            print(f"{options.env}: all checks passed.")
    except LLMGymError as error:
        print(f"llmgym: {error}", file=sys.stderr)
        return 2
    return 0


def _train(name: str, words: Sequence[str]) -> int:
    """Train with an algorithm from outside the package."""
    place, _, attribute = name.rpartition(":")
    try:
        if not place:
            raise ConfigError(f"{name!r}: expected {_ALGORITHM}.")
        agent_class = getattr(import_user_module(place, name), attribute, None)
        if not (isinstance(agent_class, type) and issubclass(agent_class, Agent)):
            raise ConfigError(
                f"{name!r}: expected an algorithm there, a class derived from OnlineAgent or OfflineAgent."
            )
    except LLMGymError as error:
        print(f"llmgym train: {error}", file=sys.stderr)
        return 2
    return run_command(agent_class, words, f"llmgym train {name}")


def _title(agent: str) -> str:
    """Return the first line of what an algorithm's module says of itself; importing it would take longer."""
    source = Path(llmgym.agents.__path__[0], f"{agent}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llmgym", description="Train language models to act over several turns.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in agents():
        commands.add_parser(name, help=_title(name).replace("%", "%%"), add_help=False)
    train = commands.add_parser("train", help="train with an algorithm of your own; its options follow")
    train.add_argument("algorithm", help=_ALGORITHM)
    commands.add_parser("envs", help="list the registered text environments")
    check = commands.add_parser("check", help="check an environment: Gymnasium's contract, purity, its expert")
    check.add_argument("env", help="a registered id, or package.module:Id")
    return parser


if __name__ == "__main__":
    sys.exit(main())

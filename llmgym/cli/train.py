"""``llmgym train``: train with an algorithm from outside the package."""

from collections.abc import Sequence

from llmgym.cli.options import Commands
from llmgym.errors import ConfigError, LLMGymError, import_user_module
from llmgym.report.console import say
from llmgym.train.agent import Agent, run_command

_ALGORITHM = "path/to/file.py:Class or package.module:Class"


def add_to(commands: Commands) -> None:
    """Add the command, whose options are those of the algorithm."""
    parser = commands.add_parser("train", help="train with an algorithm of your own; its options follow")
    parser.add_argument("algorithm", help=_ALGORITHM)


def run(name: str, words: Sequence[str]) -> int:
    """Find the algorithm and let it read its options; returns the exit code."""
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
        say(f"llmgym train: {error}", stderr=True)
        return 2
    return run_command(agent_class, words, f"llmgym train {name}")

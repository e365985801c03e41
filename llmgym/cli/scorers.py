"""``llmgym scorers``: every registered scorer, and what it says of itself."""

import argparse
import importlib

from llmgym.cli.options import Commands, first_sentence
from llmgym.scorers import registered_scorers, scorer_classes


def add_to(commands: Commands) -> None:
    """Add the command."""
    commands.add_parser("scorers", help="list the registered scorers").set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the list; returns the exit code."""
    for name, scorer in registered_scorers().items():
        print(name)
        if sentence := first_sentence(getattr(scorer, "function", type(scorer))):
            print(f"    {sentence}")
    for name, entry_point in scorer_classes().items():
        print(name)
        module, _, cls = entry_point.partition(":")
        if module.startswith("llmgym.scorers."):  # others may take long to import, as a model does
            print(f"    {first_sentence(getattr(importlib.import_module(module), cls))}")
    return 0

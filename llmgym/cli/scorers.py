"""``llmgym scorers``: every registered scorer, and what it says of itself."""

import argparse
import importlib
import json

from llmgym.cli.options import Commands, first_sentence
from llmgym.report.console import say
from llmgym.scorers import registered_scorers, scorer_classes


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("scorers", help="list the registered scorers")
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the list; returns the exit code."""
    listed = describe()
    if options.json:
        print(json.dumps(listed, indent=2))
        return 0
    for one in listed:
        say(one["name"])
        if one["description"]:
            say(f"    {one['description']}")
    return 0


def describe() -> list[dict[str, str]]:
    """Return the name of every registered scorer, and a sentence about it if it has one."""
    sentences = {
        name: first_sentence(getattr(scorer, "function", type(scorer))) for name, scorer in registered_scorers().items()
    }
    for name, entry_point in scorer_classes().items():
        module, _, cls = entry_point.partition(":")
        ours = module.startswith("llmgym.scorers.")  # others may take long to import, as a model does
        sentences[name] = first_sentence(getattr(importlib.import_module(module), cls)) if ours else ""
    return [{"name": name, "description": sentence} for name, sentence in sentences.items()]

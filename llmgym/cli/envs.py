"""``llmgym envs``: every registered environment, what it is about, and its arguments."""

import argparse
import inspect
import json
from typing import Any

import gymnasium

from llmgym.cli.options import Commands, first_sentence
from llmgym.config.command_line import print_pairs
from llmgym.envs.adapters import ADAPTERS
from llmgym.envs.text_env import TextEnv
from llmgym.registry import load_env_creator, parameters_of, registered_envs
from llmgym.report.console import say

_OF_EVERY_ENV = inspect.signature(TextEnv.__init__).parameters


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("envs", help="list the registered text environments and their arguments")
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the list; returns the exit code."""
    described = [*map(describe, registered_envs()), *map(describe_adapter, ADAPTERS)]
    if options.json:
        print(json.dumps(described, indent=2, default=repr))
        return 0
    for one in described:
        say(one["id"])
        if one["description"]:
            say(f"    {one['description']}")
        words = [*(f"{name}=..." for name in one["required"]), *print_pairs(_plain(one["defaults"]))]
        if words:
            say(f"    --env-kwargs {' '.join(words)}")
    return 0


def describe(env_id: str) -> dict[str, Any]:
    """Return what a list says of an environment: its id, one sentence, and its arguments apart from every `TextEnv`'s.

    An environment that cannot be imported is described by the error.
    """
    try:
        creator = load_env_creator(env_id)
    except Exception as error:  # noqa: BLE001  # one environment that cannot be imported must not hide the others
        sentence = f"cannot be imported ({type(error).__name__}: {error})"
        return {"id": env_id, "description": sentence, "required": [], "defaults": {}}
    parameters, _ = parameters_of(env_id)
    own = {name: one.default for name, one in parameters.items() if name not in _OF_EVERY_ENV}
    own |= gymnasium.spec(env_id).kwargs
    required = [name for name, default in own.items() if default is inspect.Parameter.empty]
    return {
        "id": env_id,
        "description": first_sentence(creator),
        "required": required,
        "defaults": {name: default for name, default in own.items() if name not in required},
    }


def describe_adapter(package: str) -> dict[str, Any]:
    """Return what a list says of another package's environments: the name of one, and what is to be installed."""
    adapter = ADAPTERS[package]
    install = "" if adapter.extra is None else f" (pip install 'llmgym-rl[{adapter.extra}]')"
    sentence = f"One of {adapter.about}{install}."
    return {"id": f"{package}:{adapter.example}", "description": sentence, "required": [], "defaults": {}}


def _plain(defaults: dict[str, Any]) -> dict[str, Any]:
    """Return defaults with the ``repr`` of whatever YAML has no plain form for."""
    plain: dict[str, Any] = json.loads(json.dumps(defaults, default=repr))
    return plain

"""What the parts of scores mean, as the docstrings of the built-in environments say it."""

import inspect
import re
from collections.abc import Mapping

import gymnasium

from llmgym.envs.adapters import ADAPTERS
from llmgym.registry import load_env_creator


def part_meanings(env: str) -> Mapping[str, str]:
    """Return what the parts of an environment's scores are, by name, as far as its docstring lists them.

    Only built-in environments are looked up: pages import nobody else's code.

    Args:
        env: Its id, with or without namespace and version, as a run's options have it.

    Examples:
        >>> part_meanings("AIOpsTriage")["service"]
        'service, incident_type, acc_main: the answer is right in one, or in both.'
        >>> part_meanings("acme.rhymes:Rhyme-v0")
        {}
    """
    wanted = re.compile(rf"llmgym/{re.escape(env.removeprefix('llmgym/'))}(-v\d+)?")
    adapted = {adapter.env_id for adapter in ADAPTERS.values()}
    ids = [name for name in gymnasium.registry if wanted.fullmatch(name) and name not in adapted]
    docstring = (inspect.getdoc(load_env_creator(ids[-1])) or "") if ids else ""
    listed = re.findall(r"^- (``.+?): (.*(?:\n  .*)*)", docstring, re.MULTILINE)
    return {
        name: " ".join(f"{names}: {words}".replace("``", "").split())
        for names, words in listed
        for name in re.findall(r"``(\w+)``", names)
    }

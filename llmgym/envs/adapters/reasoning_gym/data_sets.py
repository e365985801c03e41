"""The data sets: which there are, which are refused, and their questions and scores as pure functions of a number.

The functions take the configuration as JSON text, which can be a key and can be sent to another process.
"""

import contextlib
import dataclasses
import functools
import json
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from llmgym.envs.adapters.global_random import GlobalRandom
from llmgym.envs.adapters.reasoning_gym.answers import answer_in, may_be_scored
from llmgym.errors import ConfigError, UnknownNameError, did_you_mean, import_extra

_package: Any = import_extra("reasoning_gym", extra="reasoning-gym")
_factory: Any = import_extra("reasoning_gym.factory", extra="reasoning-gym")

REFUSED = {
    "composite": "it mixes other data sets: make an environment of each of them",
    "game_of_life_halting": "its scorer gives full marks to any text",
}
"""Data sets that are refused, and why."""

APART = frozenset(
    [
        "isomorphic_strings",
        "knight_swap",
        "polynomial_multiplication",
        "ransom_note",
        "word_ladder",
        "intermediate_integration",
        "simple_integration",
    ]
)
"""Data sets that need a process of their own.

The first five ask or answer something else under another PYTHONHASHSEED; SymPy may take forever to check the rest.
"""

WITHOUT_ORACLE = frozenset(["boxnet", "rush_hour"])
"""Data sets that do not tell the answer."""

_MADE_ANEW = frozenset(["acre", "gsm_symbolic", "list_functions", "word_ladder"])
"""Data sets whose items depend on their size, so that each question needs an object of its own."""

_ORACLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "graph_color": lambda item: json.dumps(item["possible_answer"]),
    "propositional_logic": lambda item: item["example_answer"],
    "rubiks_cube": lambda item: item["example_correct_answer"],
}
"""Answers of the data sets that keep them in their items' metadata."""


class Question(NamedTuple):
    """A question and the package's own answer, if it tells."""

    text: str
    oracle: str | None


def check(name: str, config: dict[str, Any]) -> None:
    """Refuse a data set, or a configuration, that no question can be made of.

    Raises:
        UnknownNameError: There is no data set of that name.
        ConfigError: It is refused, or its configuration is.
    """
    known = _factory.DATASETS
    if name not in known:
        raise UnknownNameError(
            f"Reasoning Gym has no data set {name!r}.{did_you_mean(name, known)} Data sets: {', '.join(sorted(known))}."
        )
    if name in REFUSED:
        raise ConfigError(f"reasoning_gym:{name} is refused: {REFUSED[name]}.")
    options = {field.name for field in dataclasses.fields(known[name][1])} - {"seed", "size"}
    for option in config:
        if option in ("seed", "size"):
            raise ConfigError(f"reasoning_gym:{name} takes no {option}: the seed of an episode decides its question.")
        if option not in options:
            raise ConfigError(
                f"reasoning_gym:{name} has no argument {option!r}.{did_you_mean(option, options)} "
                f"Arguments: {', '.join(sorted(options)) or 'none'}."
            )
    try:
        made = known[name][1](seed=0, size=1, **config)
        if hasattr(made, "validate"):
            made.validate()
    except (AssertionError, TypeError, ValueError) as error:
        raise ConfigError(f"reasoning_gym:{name} refuses {config}: {error}") from error


def ask(name: str, config: str, number: int) -> Question:
    """Return the question of a number."""
    item = _item(name, config, number)
    oracle = item["answer"]
    if name in _ORACLES:
        oracle = _ORACLES[name](item["metadata"])
    return Question(item["question"], oracle)


def score(name: str, config: str, number: int, reply: str) -> tuple[float, bool]:
    """Score a reply to the question of a number.

    Returns:
        The package's own score, and whether its scorer could read the answer; one that it could not earns what no
        answer does.
    """
    item = _item(name, config, number)
    answer = answer_in(reply, ask(name, config, number).oracle)
    data_set = _data_set(name, config, number if name in _MADE_ANEW else 0)
    with _RANDOM, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what an answer lacks
        if may_be_scored(name, answer):
            with contextlib.suppress(Exception):  # how some scorers say that they cannot read an answer
                return float(data_set.score_answer(answer, item)), True
        return float(data_set.score_answer(None, item)), False


_RANDOM = GlobalRandom(0)


@functools.lru_cache(maxsize=1024)
def _item(name: str, config: str, number: int) -> dict[str, Any]:
    """Return an item: siblings share it."""
    anew = name in _MADE_ANEW
    data_set = _data_set(name, config, number if anew else 0)
    with _RANDOM:
        item: dict[str, Any] = data_set[0 if anew else number]
    return item


@functools.lru_cache(maxsize=128)
def _data_set(name: str, config: str, seed: int) -> Any:
    """Return a data set, which is kept since some take a second to make; an item is of its seed plus its index."""
    with _RANDOM:
        return _package.create_dataset(name, seed=seed, size=1, **json.loads(config))

"""How scorers get their names, and how a name on the command line finds them."""

import functools
import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from llmgym.errors import ConfigError, UnknownNameError, did_you_mean, import_user_module
from llmgym.plugins import load_plugins
from llmgym.scorers import answers, code, own, text
from llmgym.scorers.asking import AnyScorer, asked_per
from llmgym.scorers.functions import check_takes, function_scorer
from llmgym.scorers.pairwise import PairwiseFunctionScorer
from llmgym.scorers.pointwise import ScoreFunction, give_name

Decorated = TypeVar("Decorated")

_SCORERS: dict[str, AnyScorer] = {}
_CLASSES: dict[str, str] = {}
_ALONE: set[str] = set()  # of those, the ones that need no argument
_ORIGINS: dict[str, str] = {}  # of registered names: where each comes from
_PLAIN: list[object] = []  # made of a class without arguments


def register_scorer(name: str) -> Callable[[Decorated], Decorated]:
    """Register the decorated function of an episode, or class with a method `score`, as a scorer under `name`.

    A reward function written for verl or TRL will do too; see `llmgym.scorers.functions`.

    Raises:
        ConfigError: It is neither, the class cannot be made without arguments, or another scorer has the name.
    """
    return _registering(name, function_scorer)


def register_pairwise_scorer(name: str) -> Callable[[Decorated], Decorated]:
    """Register the decorated function of two episodes of one task, or class with a method `compare`, under `name`.

    Raises:
        ConfigError: It is neither, the class cannot be made without arguments, or another scorer has the name.
    """
    return _registering(name, _comparing)


def _comparing(function: Callable[..., Any], name: str) -> PairwiseFunctionScorer:
    check_takes(function, "first", "second")
    return PairwiseFunctionScorer(function, name)


def _registering(name: str, made_of: Callable[[Any, str], AnyScorer]) -> Callable[[Decorated], Decorated]:
    def register(decorated: Decorated) -> Decorated:
        made: AnyScorer
        if isinstance(decorated, type | AnyScorer):
            made = _made(decorated)
            give_name(made, name)
        elif callable(decorated):
            made = made_of(decorated, name)
        else:
            raise ConfigError(f"scorer {name!r}: expected a function or a class, got {decorated!r:.80}")
        _claim(name, _origin(decorated))
        _SCORERS[name] = made
        return decorated

    return register


def _claim(name: str, origin: str) -> None:
    """Give a name to what comes from somewhere; a cell that is run again, or a file read twice, gives the same one.

    Raises:
        ConfigError: Something from elsewhere has the name.
    """
    if (known := _ORIGINS.setdefault(name, origin)) != origin:
        raise ConfigError(f"scorer: the name {name!r} is taken by {known}; {origin} needs a name of its own.")


def _origin(scorer: object) -> str:
    """Return where a function or class, or the class of an instance, comes from, as ``"file or module:name"``."""
    thing = scorer if hasattr(scorer, "__qualname__") else type(scorer)
    module = str(getattr(thing, "__module__", ""))
    file = getattr(sys.modules.get(module), "__file__", None)
    place = module if file is None or module.startswith("llmgym.") else str(Path(file).resolve())
    return f"{place}:{getattr(thing, '__qualname__', '')}"


def _made(scorer: object) -> AnyScorer:
    """Return a scorer, made of its class if it is one."""
    made = scorer
    if isinstance(scorer, type):
        try:
            made = scorer()
        except Exception as error:
            raise ConfigError(
                f"scorer: cannot make {scorer.__name__}() ({type(error).__name__}: {error}); a scorer that needs "
                "arguments is given as an instance, by the name of a variable of a module."
            ) from error
        _PLAIN.append(made)
    if not isinstance(made, AnyScorer):
        raise ConfigError(
            f"scorer: expected a method score(episodes) or compare(pairs), got {type(made).__name__}, which has neither"
        )
    asked_per(made)
    return made


def _module_of(scorer: AnyScorer) -> str:
    return str(getattr(getattr(scorer, "function", type(scorer)), "__module__", ""))


def is_plain(scorer: object) -> bool:
    """Tell whether a scorer is what its class makes without arguments."""
    return any(one is scorer for one in _PLAIN)


def _made_of(entry_point: str, *arguments: str) -> AnyScorer:
    """Return what a class makes of a string, or of nothing."""
    module, _, cls = entry_point.partition(":")
    made: AnyScorer = getattr(importlib.import_module(module), cls)(*arguments)
    return made


def register_scorer_class(name: str, entry_point: str, *, alone: bool = False) -> None:
    """Register a scorer that is made from a string: ``"name:string"`` calls `entry_point` with it.

    Args:
        name: What comes before the colon.
        entry_point: ``"module:Class"``, imported when it is first needed.
        alone: Whether the class takes no string, so that the name alone makes one.

    Raises:
        ConfigError: Another class, or with `alone` another scorer, has the name.
    """
    _claim(f"{name}:", entry_point)
    if alone:
        _claim(name, entry_point)
        _ALONE.add(name)
    _CLASSES[name] = entry_point


def registered_scorers() -> dict[str, AnyScorer]:
    """Return all scorers that have a name, those of installed plugins too."""
    load_plugins()
    return dict(_SCORERS)


def named_in(formula: str) -> dict[str, AnyScorer]:
    """Return the scorers that a formula names and that others than llmgym have registered, for another process."""
    return {
        name: scorer
        for name, scorer in _SCORERS.items()
        if name in formula and not _module_of(scorer).startswith("llmgym.")
    }


def adopt(scorers: Mapping[str, AnyScorer]) -> None:
    """Take what another process has registered, unless the names are taken."""
    for name, scorer in scorers.items():
        _SCORERS.setdefault(name, scorer)


def scorer_classes() -> dict[str, str]:
    """Return the entry points of the classes that scorers are made of, by what a name of theirs looks like."""
    load_plugins()
    return {_looks(name): entry_point for name, entry_point in _CLASSES.items()}


def _looks(name: str) -> str:
    return name if name in _ALONE else f"{name}:..."


def find_named(scorer: AnyScorer | ScoreFunction | str, name: str | None = None) -> Callable[[], AnyScorer]:
    """Find a scorer: one that is one already, a function of an episode, or what a name stands for.

    Args:
        scorer: A function scores an episode, unless it is registered as one that compares
            two, or takes what verl or TRL hand to reward functions. Names are those of registered scorers,
            ``"module:name"`` or ``"path/to/file.py:name"`` for one of a module, registered or not, and
            ``"class:argument"`` such as ``"reward_model:PATH"``; a name alone may also be that of a scorer in an
            installed plugin.
        name: What messages call a function that is not registered; None for its own name.

    Returns:
        What makes it, for it may be a model that has to be loaded.

    Raises:
        UnknownNameError: No scorer of that name is registered.
        ConfigError: It is something else.
    """
    if isinstance(scorer, AnyScorer):  # a class with such a method, too
        made = _made(scorer)
        if name is not None:
            give_name(made, name)
        return lambda: made
    if callable(scorer) and not isinstance(scorer, type):
        registered = (one for one in _SCORERS.values() if getattr(one, "function", None) is scorer)
        found = next(registered, None) or function_scorer(scorer, name)
        return lambda: found
    if not isinstance(scorer, str):
        raise ConfigError(f"scorer: expected a scorer, a function or a name, got {scorer!r:.80}")
    kind, colon, argument = scorer.partition(":")
    if scorer not in _SCORERS and kind not in _CLASSES:
        load_plugins()
    if scorer in _ALONE:
        return functools.partial(_made_of, _CLASSES[scorer])
    if colon and kind in _CLASSES and kind not in _ALONE:
        if not argument:
            raise ConfigError(f"scorer: expected something after the colon of {scorer!r}, got nothing.")
        return functools.partial(_made_of, _CLASSES[kind], argument)
    module, _, wanted = scorer.rpartition(":")
    if module:
        imported = import_user_module(module, scorer)
        there = getattr(imported, wanted, None)
        if callable(there) or isinstance(there, AnyScorer):
            return find_named(there, scorer)
        if wanted not in _SCORERS or _module_of(_SCORERS[wanted]) != imported.__name__:
            raise UnknownNameError(f"{module!r} has no scorer {wanted!r}.{did_you_mean(wanted, vars(imported))}")
    if wanted not in _SCORERS:
        known = ", ".join([*sorted(_SCORERS), *map(_looks, _CLASSES)]) or "none"
        raise UnknownNameError(
            f"No scorer is registered as {wanted!r}.{did_you_mean(wanted, _SCORERS)} Registered: {known}. "
            "One of yours is 'my_module:name' or 'path/to/file.py:name'."
        )
    return lambda: _SCORERS[wanted]


for _scorer in (
    answers.exact,
    answers.contains,
    answers.number,
    answers.boxed,
    code.code,
    text.repetition,
    text.citations,
    own.env,
):
    register_scorer(_scorer.__name__)(_scorer)
register_scorer_class("env", "llmgym.scorers.own:Part")
register_scorer_class("number", "llmgym.scorers.answers:Number")
register_scorer_class("math", "llmgym.scorers.math_answers:Math", alone=True)
register_scorer_class("json_schema", "llmgym.scorers.json_schema:JsonSchema")
register_scorer_class("regex", "llmgym.scorers.text:Regex")
register_scorer_class("length", "llmgym.scorers.text:Length")
register_scorer_class("language", "llmgym.scorers.languages:Language")
register_scorer_class("reward_model", "llmgym.learn.reward_model:reward_scorer")
register_scorer_class("judge", "llmgym.scorers.judges.settings:from_file")

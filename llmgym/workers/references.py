"""Names of functions and classes, by which another process finds the same."""

import functools
import operator
import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from llmgym.errors import ConfigError, UnknownNameError, import_user_module, module_of_file


@functools.cache
def reference(thing: Hashable) -> str:
    """Return ``"module:name"`` or ``"file.py:name"``, by which another process finds a function or a class.

    Raises:
        ConfigError: It is not the one of its module that has that name.
    """
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    known = sys.modules.get(module or "")
    try:
        found = None if name is None else operator.attrgetter(name)(known)
    except AttributeError:
        found = None
    if known is None or found is not thing:
        raise ConfigError(
            f"expected a function or class that another process can import by its name, got {name or thing!r:.80} of "
            f"{module}"
        )
    return f"{_importable(known)}:{name}"


def _importable(module: Any) -> str:
    """Return how another process imports a module.

    Raises:
        ConfigError: It cannot.
    """
    file = getattr(module, "__file__", None)
    if module.__name__ == "__main__":
        if getattr(module, "__spec__", None) is not None:  # python -m
            return str(module.__spec__.name)
        if file is None or not Path(file).is_file():
            raise ConfigError("expected something that a module or a file holds, got something of __main__")
    return str(file) if file and module.__name__ in ("__main__", module_of_file(Path(file))) else str(module.__name__)


@functools.cache
def find(name: str) -> Any:
    """Return what a reference stands for.

    Raises:
        UnknownNameError: There is no such module, or nothing of that name in it.
    """
    module, _, attribute = name.rpartition(":")
    main = sys.modules["__main__"]
    is_main = module.endswith(".py") and getattr(main, "__file__", None) == module  # which is not imported once more
    try:
        return operator.attrgetter(attribute)(main if is_main else import_user_module(module, name))
    except AttributeError as error:
        raise UnknownNameError(f"{name!r}: {error}") from error

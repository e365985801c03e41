"""Entry points that are text, under which Gymnasium finds what makes an environment.

`gymnasium.register` takes a class as it is, but `EnvSpec.to_json` then refuses to write the registration. The name of
a class does not say for sure which one was meant: it may be defined in a function, or once per turn of a loop. So what
makes an environment is kept here, under a name that nothing else has.
"""

import importlib
from collections.abc import Callable
from typing import Any

_MAKERS: dict[str, Callable[..., Any]] = {}


def keep(name: str, maker: Callable[..., Any], module: str) -> str:
    """Keep what makes an environment, and return its entry point, such as ``"llmgym.entry_points:rhymes/Rhyme-v0"``.

    Args:
        name: What it is found by.
        maker: The class, or a function.
        module: Registers it, and is imported by a process that knows the entry point and not yet the environment.
    """
    _MAKERS[name] = maker
    return f"{__name__}:{module}/{name}"


def __getattr__(path: str) -> Callable[..., Any]:
    """Return what is kept under the name in ``"module/name"``, as an attribute, which is how Gymnasium asks for it."""
    module, _, name = path.partition("/")
    if name and name not in _MAKERS and module != "__main__":
        importlib.import_module(module)
    if name not in _MAKERS:
        raise AttributeError(f"{module} has registered no environment as {name!r} in this process.")
    return _MAKERS[name]

"""Entry points that are text, under which Gymnasium finds what makes an environment.

`gymnasium.register` takes a class as it is, but `EnvSpec.to_json` then refuses to write the registration. The name of
a class does not say for sure which one was meant, for a module may define several of one name. So what makes an
environment is kept here, under a name that nothing else has.
"""

import importlib
from collections.abc import Callable
from typing import Any

_MAKERS: dict[str, Callable[..., Any]] = {}


def keep(name: str, maker: Callable[..., Any], module: str, attribute: str = "") -> str:
    """Keep what makes an environment, and return its entry point.

    A process that knows the entry point and not yet the environment imports the module, which most often registers it;
    where it does not, an attribute of the module is taken.

    Example:
        >>> keep("Fraction-v0", __import__("fractions").Fraction, "fractions", "Fraction")
        'llmgym.entry_points:fractions/Fraction/Fraction-v0'
    """
    _MAKERS[name] = maker
    return f"{__name__}:{module}/{attribute}/{name}"


def __getattr__(path: str) -> Callable[..., Any]:
    """Return what an entry point stands for, as an attribute, which is how Gymnasium asks for it."""
    module, _, rest = path.partition("/")
    attribute, _, name = rest.partition("/")
    if name and name not in _MAKERS:
        imported = importlib.import_module(module)
        if name not in _MAKERS and hasattr(imported, attribute):
            _MAKERS[name] = getattr(imported, attribute)
    if name not in _MAKERS:
        raise AttributeError(f"{module} has registered no environment as {name!r}.")
    return _MAKERS[name]

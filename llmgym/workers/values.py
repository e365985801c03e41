"""Python values as JSON, from which another process makes the same.

Values are those that JSON has, and tuples, sets, bytes, dates, decimals, patterns, NumPy's, enumerations, and
functions, classes and instances of classes that a module holds. An instance is read back without calling anything of
its class.
"""

import base64
import datetime
import decimal
import enum
import functools
import re
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from llmgym.errors import ConfigError
from llmgym.workers.references import find, reference

Json = Any

_TAG = "$"
_BASES: dict[str, Any] = {kind.__name__: kind for kind in (str, int, float, tuple)}
_DATES = {kind.__name__: kind for kind in (datetime.datetime, datetime.date, datetime.time)}


def encode(value: Any) -> Json:
    """Return a value as JSON.

    Raises:
        ConfigError: It holds something that another process cannot be given.
    """
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [encode(one) for one in value]
    if kind is dict and all(type(key) is str for key in value) and _TAG not in value:
        return {key: encode(one) for key, one in value.items()}
    return {_TAG: _tag(value)}


def decode(value: Json) -> Any:
    """Return what was encoded."""
    if isinstance(value, list):
        return [decode(one) for one in value]
    if not isinstance(value, dict):
        return value
    if _TAG not in value:
        return {key: decode(one) for key, one in value.items()}
    kind, *rest = value[_TAG]
    return _MADE[kind](*rest)


def _tag(value: Any) -> list[Json]:
    """Return what is not JSON's own as a kind and what that kind is made of."""
    if isinstance(value, enum.Enum):
        flag = isinstance(value, enum.Flag)  # several of which have no name together
        return ["flag" if flag else "enum", reference(type(value)), value.value if flag else value.name]
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufU":
        return ["array", value.tolist(), value.dtype.str, list(value.shape)]
    if isinstance(value, np.generic) and value.dtype.kind in "biufU":
        return ["number", value.item(), value.dtype.str]
    if type(value) in (tuple, set, frozenset):
        return [type(value).__name__, [encode(one) for one in value]]
    if isinstance(value, bytes | bytearray):
        return ["bytes", base64.b64encode(value).decode()]
    if isinstance(value, re.Pattern):
        return ["pattern", value.pattern, value.flags]
    if isinstance(value, decimal.Decimal):
        return ["decimal", str(value)]
    if type(value).__name__ in _DATES and isinstance(value, datetime.date | datetime.time):
        return [type(value).__name__, value.isoformat()]
    if type(value) is dict or (isinstance(value, Mapping) and not _is_own(type(value))):
        return ["dict", [[encode(key), encode(one)] for key, one in value.items()]]
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        return _named(value)
    return _instance(value)


def _named(value: Any) -> list[Json]:
    """Return a function or class by its name; a function without one may well never be called."""
    try:
        return ["name", reference(value)]
    except ConfigError:
        if isinstance(value, type):
            raise
        return ["unsent", str(value.__qualname__)]


def _unsent(name: str) -> Callable[..., NoReturn]:
    def refuse(*arguments: Any, **options: Any) -> NoReturn:
        raise RuntimeError(f"{name} is no function of a module, and cannot be called in another process")

    return refuse


def _instance(value: Any) -> list[Json]:
    """Return an instance as its class, what it is as a string, number or tuple if it is one, and its attributes."""
    cls: Any = type(value)
    name, base, slots = _shape(cls)
    held = {slot: getattr(value, slot) for slot in slots if hasattr(value, slot)} | getattr(value, "__dict__", {})
    own = None if base is None else [base.__name__, encode(base(value))]
    return ["instance", name, own, {name: encode(one) for name, one in held.items()}]


@functools.cache
def _shape(cls: Any) -> tuple[str, Any, tuple[str, ...]]:
    """Return the name of a class, which of the bases it has that are values themselves, and its slots.

    Raises:
        ConfigError: It has no name, or its instances are more than that.
    """
    base = next((base for base in _BASES.values() if issubclass(cls, base)), None)
    if base is None and not _is_own(cls):
        raise ConfigError(f"expected what another process can be given, such as JSON has, got {cls.__name__}")
    slots = (name for each in cls.__mro__ for name in _names(each.__dict__.get("__slots__", ())))
    return reference(cls), base, tuple(name for name in slots if name not in ("__dict__", "__weakref__"))


def _is_own(cls: type) -> bool:
    """Tell whether there is no more to instances of a class than their attributes; there is to a lock, or a file."""
    return not any("__new__" in vars(one) for one in cls.__mro__[:-1])


def _names(slots: str | tuple[str, ...]) -> Iterator[str]:
    yield from [slots] if isinstance(slots, str) else slots


def _made_instance(name: str, own: Json, held: dict[str, Json]) -> Any:
    cls = find(name)
    made = object.__new__(cls) if own is None else _BASES[own[0]].__new__(cls, decode(own[1]))
    for attribute, value in held.items():
        object.__setattr__(made, attribute, decode(value))
    return made


_MADE = {
    "name": find,
    "unsent": _unsent,
    "enum": lambda name, member: find(name)[member],
    "flag": lambda name, value: find(name)(value),
    "array": lambda values, dtype, shape: np.array(values, dtype).reshape(shape),
    "number": lambda value, dtype: np.dtype(dtype).type(value),
    "tuple": lambda values: tuple(map(decode, values)),
    "set": lambda values: set(map(decode, values)),
    "frozenset": lambda values: frozenset(map(decode, values)),
    "bytes": base64.b64decode,
    "pattern": re.compile,
    "decimal": decimal.Decimal,
    "dict": lambda pairs: {decode(key): decode(value) for key, value in pairs},
    "instance": _made_instance,
    **{name: kind.fromisoformat for name, kind in _DATES.items()},
}

"""Options as a file holds them: YAML that is what it seems, and values that are read back as they were written."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from llmgym.errors import ConfigError
from llmgym.visible import visible

_DEEPEST = 100  # values within one another
_MOST = 100_000  # values, those that aliases repeat included
_LARGEST = 10_000  # bits of a whole number, which Python reads and writes as text

_BROKEN = yaml.YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError
"""What PyYAML raises of a text, such as ``!!bool maybe``, or a day that no month has."""


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that has a key twice, and whole numbers that take long to read or cannot be printed."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) <= _LARGEST:
            number: int = super().construct_yaml_int(node)
            if number.bit_length() <= _LARGEST:
                return number
        raise ValueError(f"a whole number of more than {_LARGEST:,} bits")

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{twice!r:.80} is there twice")
        return node


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def to_yaml(values: Mapping[str, Any]) -> str:
    """Return values as YAML, in their order, that `from_yaml` reads."""
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    if visible(text) == text:
        return text
    return yaml.safe_dump(dict(values), sort_keys=False)  # which writes all but ASCII as numbers


def from_yaml(text: str) -> Any:
    """Return the value that a YAML text has.

    Raises:
        ValueError: It has none, a key is twice in a mapping, or a whole number is too large, or values are nested too
            deeply, too many, or contain themselves.
    """
    try:
        value = _Loader(text).get_single_data()
    except RecursionError:
        raise ValueError(f"more than {_DEEPEST} values within one another") from None
    except _BROKEN as error:
        raise ValueError(str(error) or type(error).__name__) from None
    level, count = [value], 1
    for _ in range(_DEEPEST):
        level = [one for outer in level for one in _inside(outer)]
        count += len(level)
        if count > _MOST:
            raise ValueError(f"more than {_MOST:,} values")
        if not level:
            return value
    raise ValueError(f"more than {_DEEPEST} values within one another")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or holds something else.
    """
    try:
        values = from_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: UTF-8 is broken, or YAML
        raise ConfigError(f"Cannot read the configuration {str(path)!r}: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{str(path)!r} has to hold options as `key: value` lines, got {type(values).__name__}.")
    return {str(key): value for key, value in values.items()}


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list) else ()


def read_back(value: Any) -> Any:
    """Return a value as a file of options gives it back: tuples become lists, and paths text.

    Raises:
        ValueError: No file would give it back.

    Examples:
        >>> read_back({"sizes": (3, 4), "rows": Path("rows.parquet")})
        {'sizes': [3, 4], 'rows': 'rows.parquet'}
    """
    return _read_back(value, 0)


def _read_back(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"Input should have at most {_DEEPEST} values within one another")
    if isinstance(value, Path):
        value = str(value)
    if type(value) is int and value.bit_length() > _LARGEST:
        raise ValueError(f"Input should have no whole number of more than {_LARGEST:,} bits")
    if type(value) is str and not _is_text(value):
        raise ValueError(f"Input should have no text that UTF-8 lacks, such as {value!r:.80}")
    if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
        return value
    if isinstance(value, Mapping) and all(type(key) is str and _is_text(key) for key in value):
        return {key: _read_back(one, depth + 1) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_read_back(one, depth + 1) for one in value]
    raise ValueError(
        "Input should have text, finite numbers, true, false, null, lists and mappings from text alone, which a file "
        f"gives back as they are; {type(value).__name__} is no such value"
    )


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True

"""JSON as a file of data may hold it: no name twice in an object, and nothing nested too deeply."""

import json
from pathlib import Path
from typing import Any

from llmgym.errors import DataError
from llmgym.files import require_file

_DEEPEST = 100  # values within one another: whoever walks through them does so by recursion
_TOO_DEEP = f"more than {_DEEPEST} values within one another"


def json_object(path: Path) -> dict[str, Any]:
    """Return the object that a file holds as JSON.

    Raises:
        DataError: There is no such file, or it holds something else.
    """
    try:
        require_file(path)
        value = from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)!r}: expected JSON ({error}).") from None
    if not isinstance(value, dict):
        raise DataError(f"{str(path)!r}: expected a JSON object, got {type(value).__name__}.")
    return value


def from_json(text: str) -> Any:
    """Return the value that a JSON text has.

    Raises:
        ValueError: It has none, a name is twice in an object, or values are nested too deeply.
    """
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg.removesuffix(' at')} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if text.count("[") + text.count("{") > _DEEPEST and _is_deep(value):
        raise ValueError(_TOO_DEEP)
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        inner = (one.values() if isinstance(one, dict) else one for one in level)
        level = [one for ones in inner for one in ones if isinstance(one, dict | list)]
    return bool(level)


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in found if names.count(name) > 1)!r:.80} is there twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_named_once)

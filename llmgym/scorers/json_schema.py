"""A scorer of replies that have to be JSON of a given shape, and a strict reader of JSON."""

import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from llmgym.errors import ConfigError, DataError, import_extra
from llmgym.scorers.text import last_reply
from llmgym.types import Episode, Score

_MOST_CHARS = 100_000  # of a reply
_MOST_DIGITS = 300  # of a whole number: a float holds it
_DEEPEST = 50  # values within one another
_SPACE = " \t\r\n"  # of JSON


class JsonSchema:
    """Whether the last reply is one JSON value that fits a JSON Schema, and nothing else: 1 or 0.

    The value may be all there is in one block between lines of three backticks, the first of which says ``json``. It is
    read strictly, and nothing is mended: a key that is there twice, NaN, Infinity, numbers beyond what a float holds,
    lone surrogates, more than 50 levels, and replies of more than 100,000 characters are 0. What the schema says of
    ``format`` is not checked. References have to be within the schema; nothing is ever fetched.

    A pattern in the schema can take exponential time, and ``uniqueItems`` quadratic time. With worker processes for
    scorers, such a call costs the score of its episode.

    Args:
        schema: A schema, or the path of a JSON file that holds one. The draft is what ``$schema`` says, or 2020-12.

    Raises:
        ConfigError: The package ``jsonschema`` is missing, or the schema is none.
        DataError: The file cannot be read.

    Example:
        >>> from llmgym.types import Turn
        >>> scorer = JsonSchema({"type": "object", "required": ["service"]})
        >>> replies = ['{"service": "auth"}', '{"service": "auth"} I think', '{"service": "a", "service": "b"}']
        >>> [scorer.score([Episode(turns=[Turn("Which?", reply)])])[0].value for reply in replies]
        [1.0, 0.0, 0.0]
    """

    per: ClassVar[str] = "episode"
    may_hang: ClassVar[bool] = True

    def __init__(self, schema: Mapping[str, Any] | bool | str | Path) -> None:
        import_extra("jsonschema", extra="json-schema")
        place = f" in {schema}" if isinstance(schema, str | Path) else ""
        self.name = f"json_schema:{schema}" if place else "json_schema"
        try:
            self.schema = _file(Path(schema)) if isinstance(schema, str | Path) else json.dumps(schema, allow_nan=False)
            strict(self.schema)
        except (ValueError, TypeError, RecursionError) as error:
            if isinstance(error, DataError):
                raise
            raise ConfigError(f"scorer: expected a JSON Schema{place}, got what is no strict JSON: {error}") from error
        try:
            _validator(self.schema).is_valid(None)
        except RecursionError:
            raise ConfigError(f"scorer: the JSON Schema{place} refers to itself without an end.") from None
        except ConfigError as error:
            raise ConfigError(f"scorer: expected a JSON Schema{place}: {error}") from error

    def score(self, episodes: Sequence[Episode]) -> list[Score]:
        """Read the last reply of each."""
        return [Score(float(self._fits(last_reply(one)))) for one in episodes]

    def _fits(self, reply: str) -> bool:
        if len(reply) > _MOST_CHARS:
            return False
        try:
            return bool(_validator(self.schema).is_valid(strict(_unfenced(reply))))
        except (ValueError, ArithmeticError, RecursionError):
            return False


def strict(text: str) -> Any:
    """Return the one JSON value that a text is.

    Raises:
        ValueError: It is none, or one that another reader may take for something else or not at all.

    Examples:
        >>> strict('{"a": [1, 2.5, null]}')
        {'a': [1, 2.5, None]}
        >>> strict('{"a": 1, "a": 2}')
        Traceback (most recent call last):
            ...
        ValueError: 'a' is there twice
    """
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise ValueError(f"there are more than {_DEEPEST} levels") from None
    if next(_deeper(value, _DEEPEST), None) is not None:
        raise ValueError(f"there are more than {_DEEPEST} levels")
    json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate raises UnicodeEncodeError, which is a ValueError
    return value


def _unfenced(reply: str) -> str:
    """Return what is in the one block that a reply is; a reply that is no block as it is."""
    lines = reply.strip(_SPACE).split("\n")
    fenced = len(lines) > 2 and lines[0].rstrip(_SPACE) == "```json" and lines[-1] == "```"
    return "\n".join(lines[1:-1]) if fenced else reply


def _file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"scorer: expected a file with a JSON Schema, cannot read {path}: {error}") from error


@functools.lru_cache(maxsize=32)
def _validator(schema: str) -> Any:
    """Return what checks values by a schema.

    Raises:
        ConfigError: It is no schema, of an unknown draft, or refers to something outside.
    """
    package: Any = import_extra("jsonschema", extra="json-schema")
    read = strict(schema)
    if not isinstance(read, dict | bool):
        raise ConfigError(f"a schema is an object or a boolean, got {type(read).__name__}.")
    draft = read.get("$schema") if isinstance(read, dict) else None
    kind = package.Draft202012Validator if draft is None else _of_draft(package, draft)
    try:
        kind.check_schema(read)
    except package.exceptions.SchemaError as error:
        raise ConfigError(f"{error.message:.200} (at {error.json_path}).") from error
    # The drafts themselves, and no way to retrieve anything; by default the package would fetch from the network.
    registry = import_extra("jsonschema_specifications", extra="json-schema").REGISTRY
    _check_references(kind, read, registry)
    return kind(read, registry=registry)


def _of_draft(package: Any, draft: Any) -> Any:
    """Return the kind of validator of a draft.

    Raises:
        ConfigError: It is unknown.
    """
    known = isinstance(draft, str) and package.validators.validator_for({"$schema": draft}, default=None)
    if not known:
        raise ConfigError(f"its $schema is unknown: {draft!r:.80}.")
    return known


def _check_references(kind: Any, schema: Any, registry: Any) -> None:
    """Follow every reference of a schema.

    Raises:
        ConfigError: One leads out of it, or nowhere.
    """
    referencing: Any = import_extra("referencing.jsonschema", extra="json-schema")
    resource = referencing.specification_with(kind.ID_OF(kind.META_SCHEMA)).create_resource(schema)
    left = [(resource, registry.resolver_with_root(resource))]
    while left:
        resource, resolver = left.pop()
        for key in ("$ref", "$dynamicRef"):
            reference = resource.contents.get(key) if isinstance(resource.contents, dict) else None
            if isinstance(reference, str):
                try:
                    resolver.lookup(reference)
                except Exception as error:  # a reference may be no address at all
                    raise ConfigError(
                        f"{key} {reference!r:.200} leads to nothing in it; nothing is fetched from elsewhere."
                    ) from error
        left += [(inner, resolver.in_subresource(inner)) for inner in resource.subresources()]


def _deeper(value: Any, levels: int) -> Iterator[Any]:
    """Return what is more than so many levels within a value."""
    level = [value]
    for _ in range(levels):
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [one for ones in inner for one in ones]
    return iter(level)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError("a number is too large")
    return int(digits)


def _real(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError("a number is too large")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r:.80} is there twice")
        found[name] = value
    return found


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_int=_whole, parse_float=_real, object_pairs_hook=_once)

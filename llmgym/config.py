"""Configurations: strict, frozen, read from YAML and from the command line."""

import argparse
import dataclasses
import functools
import keyword
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import tyro
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from tyro.constructors import PrimitiveConstructorSpec

from llmgym.errors import ConfigError, did_you_mean


class Config(BaseModel):
    """The base of every configuration: unknown keys are refused, values do not change.

    The docstring under a field is its help text on the command line.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("Input should not be true or false")
        return value

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Validate `values`.

        Raises:
            ConfigError: A key is unknown, or a value is not allowed.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise ConfigError("\n".join(_explain(problem, cls) for problem in error.errors())) from None

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Read a configuration that holds what differs from the defaults."""
        return cls.of(read_yaml(path))

    def is_default(self, name: str) -> bool:
        """Tell whether an option has the value that it has unless given."""
        return bool(getattr(self, name) == type(self).model_fields[name].default)

    def to_yaml(self) -> str:
        """Return every value, defaults included, as YAML that `from_yaml` reads."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _explain(problem: Any, cls: type[Config]) -> str:
    name = ".".join(str(part) for part in problem["loc"]) or cls.__name__
    if problem["type"] == "extra_forbidden":
        return f"Unknown option {name!r}.{did_you_mean(name, cls.model_fields)}"
    return f"{name}: {problem['msg'].removeprefix('Value error, ')}, got {problem['input']!r:.80}"


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or holds something else.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"Cannot read the configuration {str(path)!r}: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{str(path)!r} has to hold options as `key: value` lines, got {type(values).__name__}.")
    return {str(key): value for key, value in values.items()}


def _parse_pairs(arguments: list[str]) -> dict[str, Any]:
    pairs = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not (key and equals):
            raise ValueError(f"expected KEY=VALUE, got {argument!r}")
        try:
            pairs[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError(f"expected a YAML value behind {key}=, got {value!r}") from None
    return pairs


def _print_pairs(pairs: Mapping[str, Any]) -> list[str]:
    return [f"{key}={yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}" for key, value in pairs.items()]


Kwargs = Annotated[
    dict[str, Any],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="KEY=VALUE",
        instance_from_str=_parse_pairs,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=_print_pairs,
    ),
]
"""Keyword arguments for something else, as ``key=value`` words on the command line."""


@dataclasses.dataclass(kw_only=True)
class _CommandLine:
    """What a command takes besides the options of its configuration."""

    config: Path | None = None
    """A YAML file with options; those given here win."""

    print_config: bool = False
    """Print every option as YAML and stop."""


def _introduces(cls: type[Config], name: str) -> type[Config]:
    """Return the configuration, of `cls` and those that it is derived from, that has an option first."""
    return next(base for base in reversed(cls.mro()) if name in getattr(base, "model_fields", {}))


AnyConfig = TypeVar("AnyConfig", bound=Config)


def parse_command_line(cls: type[AnyConfig], arguments: Sequence[str] | None, prog: str) -> AnyConfig | None:
    """Read a configuration from the command line; its options win over those of ``--config``.

    Args:
        cls: The configuration to read.
        arguments: The words of the command line; None for those of this process.
        prog: How the command is called, for its help.

    Returns:
        The configuration, or None if ``--print-config`` had it printed.

    Raises:
        ConfigError: A value is not allowed. tyro itself ends the program with exit code 2
            on options that do not exist or do not parse.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config", type=Path)
    path = early.parse_known_args(arguments)[0].config
    default = cls.of(read_yaml(path) if path else {})
    # tyro parses into plain dataclasses, so that what is allowed is said once, by the configuration.
    groups: dict[type[Config], list[Any]] = {}
    for name, field in cls.model_fields.items():
        option = (
            name,
            Annotated[field.rebuild_annotation(), tyro.conf.arg(help=field.description)],
            dataclasses.field(default_factory=functools.partial(getattr, default, name)),
        )
        groups.setdefault(_introduces(cls, name), []).append(option)
    parts = {group: dataclasses.make_dataclass(group.__name__, fields) for group, fields in groups.items()}
    for group, part in parts.items():
        part.__doc__ = group.__doc__ if group is not cls else ""
    titles: dict[type[Config], str] = {}
    for number, group in enumerate(parts):
        title = re.sub("(?<=[a-z])(?=[A-Z])", "_", group.__name__.removesuffix("Config")).lower()
        fits = title.isidentifier() and not keyword.iskeyword(title) and title not in titles.values()
        titles[group] = title if fits else f"{title}_{number}"
    command: Any = dataclasses.make_dataclass(
        cls.__name__,
        [
            (titles[group], Annotated[part, tyro.conf.OmitArgPrefixes], dataclasses.field(default_factory=part))
            for group, part in parts.items()
        ],
        bases=(_CommandLine,),
        kw_only=True,
    )
    options = tyro.cli(command, args=arguments, prog=prog, description=cls.__doc__)
    values = {
        name: getattr(getattr(options, titles[group]), name) for group, fields in groups.items() for name, *_ in fields
    }
    for name, value in values.items():
        if isinstance(value, dict):  # key=value words add to those of the file
            values[name] = {**getattr(default, name), **value}
    config = cls.of(values)
    if options.print_config:
        print(config.to_yaml(), end="")
        return None
    return config

"""Configurations from the command line: flags on one level, in groups by the section that has them."""

import argparse
import dataclasses
import functools
import keyword
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
import yaml
from pydantic import AfterValidator
from tyro.constructors import PrimitiveConstructorSpec

from llmgym.config.base import Config, Option
from llmgym.config.plain import from_yaml, read_back, read_yaml
from llmgym.visible import visible


def parse_pairs(arguments: list[str]) -> dict[str, Any]:
    """Read ``key=value`` words, whose values are YAML.

    Raises:
        ValueError: A word is something else.

    Examples:
        >>> parse_pairs(["difficulty=2", "language=zh", "weights={evidence: 0.2}"])
        {'difficulty': 2, 'language': 'zh', 'weights': {'evidence': 0.2}}
    """
    pairs = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not (key and equals):
            raise ValueError(f"expected KEY=VALUE, got {argument!r}")
        try:
            pairs[key] = from_yaml(value)
        except ValueError:
            raise ValueError(f"expected a YAML value after {key}=, got {value!r:.200}") from None
    return pairs


def print_pairs(pairs: Mapping[str, Any]) -> list[str]:
    """Return the words that `parse_pairs` reads."""
    return [f"{key}={yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}" for key, value in pairs.items()]


Kwargs = Annotated[
    dict[str, Any],
    AfterValidator(read_back),
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="KEY=VALUE",
        instance_from_str=parse_pairs,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=print_pairs,
    ),
]
"""Keyword arguments for something else, as ``key=value`` words on the command line, and values that files hold."""


@dataclasses.dataclass(kw_only=True)
class _CommandLine:
    """What a command takes besides the options of its configuration."""

    config: Annotated[Path | None, tyro.conf.arg(help="A YAML file with options; those given here win.")] = None
    print_config: Annotated[bool, tyro.conf.arg(help="Print every option as YAML and stop.")] = False


def _joined(arguments: Sequence[str], flags: Collection[str]) -> list[str]:
    """Return the words of a command line, with the values of a flag that is given again after its first ones."""
    runs: list[list[str]] = [[]]  # a flag and its values each
    for word in arguments:
        if word.startswith("--"):
            runs.append([])
        runs[-1].append(word)
    first: dict[str, list[str]] = {}
    for run in runs:
        flag = run[0].replace("_", "-") if run else ""
        if flag in flags and flag in first:
            first[flag] += run[1:]
            run.clear()
        first.setdefault(flag, run)
    return [word for run in runs for word in run]


def _title_of(cls: type[Config], option: Option) -> str:
    """Return the group that help shows an option in: its section, or the algorithm that first declares it."""
    if option.section:
        return option.section
    base = next(base for base in reversed(cls.mro()) if option.name in getattr(base, "model_fields", {}))
    title = re.sub("(?<=[a-z])(?=[A-Z])", "_", base.__name__.removesuffix("Config")).lower()
    return title if title.isidentifier() and not keyword.iskeyword(title) else "own"


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
    standing = default.flat()
    groups: dict[str, list[Any]] = {}
    for name, option in cls.options().items():
        description = " ".join((option.field.description or "").split())  # wrapped by help, not where the source is
        flag = (
            name,
            Annotated[option.field.rebuild_annotation(), tyro.conf.arg(help=description or None)],
            dataclasses.field(default_factory=functools.partial(standing.get, name)),
        )
        groups.setdefault(_title_of(cls, option), []).append(flag)
    parts = []
    for title, fields in groups.items():
        part = dataclasses.make_dataclass(title, fields)
        part.__doc__ = (cls.sections()[title].__doc__ if title in cls.sections() else None) or ""
        # With its help beside it, as with each option, tyro does not look for a comment on it in whole source files.
        shown = dataclasses.field(default_factory=part, metadata={"help": part.__doc__})
        parts.append((title, Annotated[part, tyro.conf.OmitArgPrefixes], shown))
    command: Any = dataclasses.make_dataclass(
        cls.__name__,
        parts,
        bases=(_CommandLine,),
        kw_only=True,
    )
    repeatable = [f"--{name.replace('_', '-')}" for name, value in standing.items() if isinstance(value, dict)]
    words = _joined(sys.argv[1:] if arguments is None else arguments, repeatable)
    parse = functools.partial(tyro.cli, command, prog=prog, description=cls.__doc__)
    if (plain := [visible(word) for word in words]) != words:
        parse(args=plain)  # tyro quotes words in its messages as they are, so it sees these first where they are odd
    options = parse(args=words)
    values = {name: getattr(getattr(options, title), name) for title, fields in groups.items() for name, *_ in fields}
    for name, value in values.items():
        if isinstance(value, dict):  # key=value words add to those of the file
            values[name] = {**standing[name], **value}
    config = cls.of(values)
    if options.print_config:
        print(config.to_yaml(), end="")
        return None
    return config

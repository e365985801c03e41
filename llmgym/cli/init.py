"""``llmgym init``: a package with an environment, which installs, trains and passes its own test as it is."""

import argparse
import keyword
import re
import shutil
import sys
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from llmgym.cli.options import Commands
from llmgym.errors import ConfigError
from llmgym.report.console import say

_TEMPLATES = resources.files("llmgym") / "templates" / "env"
_SUFFIX = ".template"  # so that no tool takes them for modules and tests
_TAKEN = {*sys.stdlib_module_names, "tests", "llmgym", "gymnasium", "numpy", "pyarrow", "pydantic", "ray", "sglang"}
_TAKEN |= {"tensordict", "tokenizers", "torch", "torchrl", "transformers"}  # what is imported beside the package


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("init", help="write a package with an environment of your own")
    parser.add_argument("path", type=Path, help="a new directory, named like the package: my_env")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the package, and say what comes next; returns the exit code."""
    write_package(options.path)
    env_class = class_name(options.path.name)
    say(f"{options.path} has an environment, {env_class}-v0. What comes next:")
    for command in (f"pip install -e {options.path}", f"llmgym check {env_class}", f"llmgym audit {env_class}"):
        say(f"    {command}")
    return 0


def write_package(path: Path) -> None:
    """Write a package with an environment to a new directory; all of it or nothing.

    Raises:
        ConfigError: The directory has something in it, or its name is no name of a package.
    """
    package = path.name
    if not is_package_name(package):
        raise ConfigError(f"{package!r} cannot be the name of a package. {_suggestion(package)}")
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ConfigError(f"{path} exists and is not an empty directory.")
    words = {"package": package, "project": package.replace("_", "-"), "env_class": class_name(package)}
    partial = path.with_name(f".{package}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        _write(_TEMPLATES, partial, words)
        if path.exists():
            path.rmdir()  # it is empty; not every system renames onto a directory
        partial.rename(path)
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def class_name(package: str) -> str:
    """Return the name of the environment of a package.

    Examples:
        >>> class_name("my_env"), class_name("SQLGame")
        ('MyEnv', 'SQLGame')
    """
    return "".join(word[:1].upper() + word[1:] for word in package.split("_"))


def is_package_name(name: str) -> bool:
    """Tell whether a name can be that of a package: an identifier that Python has not taken, in ASCII.

    Examples:
        >>> [is_package_name(name) for name in ("my_env", "my-env", "2048", "class", "json", "_")]
        [True, False, False, False, False, False]
    """
    plain = re.fullmatch(r"[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?", name)
    return plain is not None and not keyword.iskeyword(name) and name not in _TAKEN


def _suggestion(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()
    near = next((one for one in (plain, f"{plain}_env", f"env_{plain}") if is_package_name(one)), "my_env")
    return f"How about {near!r}?"


def _write(source: Traversable, target: Path, words: dict[str, str]) -> None:
    """Write what a directory of templates stands for."""
    target.mkdir(parents=True)
    for one in source.iterdir():
        if one.is_dir():
            _write(one, target / (words["package"] if one.name == "package" else one.name), words)
        elif one.name.endswith(_SUFFIX):
            text = Template(one.read_text(encoding="utf-8")).substitute(words)
            (target / one.name.removesuffix(_SUFFIX)).write_text(text, encoding="utf-8")

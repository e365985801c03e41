"""Makes the pages of commands from their parsers and configurations.

    python -m tools.command_pages [--check]

A page is docs/commands/NAME.md. Which page explains a command, and what its exit code 1 says, is in ABOUT below.
"""

import argparse
import importlib
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from llmgym.cli.script import agents, make_parser
from llmgym.config.base import Config
from llmgym.evals.config import EvalConfig
from llmgym.train.agent import Agent

FOLDER = Path(__file__).parent.parent / "docs" / "commands"


class About(NamedTuple):
    """What a parser does not know of its command: the page that explains it, if one does, and what exit code 1 says."""

    page: str
    exit_1: str = ""


ABOUT = {
    "init": About("../environments/README.md#write"),
    "envs": About("../environments/README.md"),
    "scorers": About("../scorers.md"),
    "check": About("../environments/README.md#check", "the environment breaks a promise"),
    "audit": About("../environments/README.md#audit", "there are findings"),
    "compare": About("../evaluation.md#comparing-two"),
    "view": About("../viewer.md"),
    "report": About("../viewer.md#reports"),
    "score": About("../evaluation.md#score-again", "no episode has a score"),
    "export": About("../evaluation.md#training-data-from-episodes"),
    "play": About("../environments/README.md#play-it-yourself", "the replies ran out before the end of the episode"),
    "serve-env": About("../environments/openenv.md#serve-an-environment"),
    "doctor": About("../scaling.md#how-fast-a-run-can-be", "llmgym itself lacks a package"),
    "eval": About("../evaluation.md"),
    "train": About("../algorithms/README.md"),
    **{name: About(f"../algorithms/{name}.md") for name in agents()},
}

_TRAINS = """| 0 | it trained to the end |
| 2 | a mistake that the message explains |
| 75 | `--max-time` or `--max-memory` was reached; the same command with `--resume` goes on |
| 130, 143, 129 | it was ended by Ctrl-C, SIGTERM or SIGHUP; with `--resume` it goes on |"""

_EVERY_TRAINING = "[Training](../training.md) explains the options that all algorithms share."

_WORDS = {int: "INT", float: "NUMBER", str: "TEXT", Path: "PATH", datetime: "DATE", bool: ""}


class Option(NamedTuple):
    """A row of a table."""

    flags: str
    default: str
    meaning: str


_OF_EVERY_CONFIGURATION = (
    Option("--config PATH", "", "A YAML file with options; those on the command line win."),
    Option("--print-config", "", "Print every option as YAML and stop."),
)
_JSON = Option("--json", "", "Print the result alone as JSON; the rest goes to stderr.")  # `eval` reads it by itself


class Command(NamedTuple):
    """A command: its name, what it does in a line, what follows its name, its options by topic, and its notes."""

    name: str
    title: str
    synopsis: str
    topics: list[tuple[str, list[Option]]]
    notes: str

    @property
    def prints_json(self) -> bool:
        """Whether its result can be read by programs."""
        return any(option.flags.startswith("--json") for _, options in self.topics for option in options)

    @property
    def trains(self) -> bool:
        """Whether it is an algorithm."""
        return self.name in {"train", *agents()}


def commands() -> list[Command]:
    """Return every command, in the order of ``llmgym --help``."""
    (subcommands,) = (one for one in make_parser()._actions if isinstance(one, argparse._SubParsersAction))
    titles = {str(one.dest): str(one.help).replace("%%", "%") for one in subcommands._choices_actions}
    found = []
    for name, parser in subcommands.choices.items():
        title = titles[name][:1].upper() + titles[name][1:]
        if name in agents():
            found.append(_configured(name, title, _agent(name).config_class))
        elif name == "eval":
            found.append(_configured(name, title, EvalConfig))
        else:
            found.append(_parsed(name, title, parser))
    return found


def _agent(name: str) -> type[Agent]:
    module = importlib.import_module(f"llmgym.agents.{name}")
    return next(one for one in vars(module).values() if isinstance(one, type) and getattr(one, "name", None) == name)


def _parsed(name: str, title: str, parser: argparse.ArgumentParser) -> Command:
    """Return a command whose options its parser knows."""
    actions = [one for one in parser._actions if not isinstance(one, argparse._HelpAction)]
    places = [one for one in actions if not one.option_strings]
    required = [one for one in actions if one.option_strings and one.required]
    words = [*map(_value, places), *(f"{one.option_strings[-1]} {_value(one)}" for one in required)]
    options = [one for one in actions if one.option_strings]
    words += ["[OPTIONS]"] * (len(options) > len(required) or name == "train")
    topics = [("Arguments", [*map(_of_action, places)]), ("Options", [*map(_of_action, options)])]
    return Command(name, title, " ".join(words), topics, " ".join((parser.epilog or "").split()))


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.choices is not None:
        return "{" + ", ".join(map(str, action.choices)) + "}"
    word = str(action.metavar or action.dest.upper())
    if action.nargs == "?":
        return f"[{word}]"
    return f"{word} ..." if action.nargs in ("*", "+") else word


def _of_action(action: argparse.Action) -> Option:
    names = ", ".join(f"{flag} {_value(action)}".strip() for flag in action.option_strings) or _value(action)
    meaning, default = (action.help or "").replace("%%", "%"), ""
    if (said := re.fullmatch(r"(.*?)\s*\(default: (.*)\)", meaning, re.DOTALL)) is not None:
        meaning, default = said.groups()
    return Option(names, "required" if action.option_strings and action.required else default, meaning)


def _configured(name: str, title: str, config: type[Config]) -> Command:
    """Return a command whose options are those of a configuration."""
    standing = config.of({}).flat()
    topics: dict[str, list[Option]] = {}
    for flag, option in config.options().items():
        heading = option.section.replace("_", " ").capitalize()
        meaning = " ".join((option.field.description or "").split())
        names = f"--{flag.replace('_', '-')} {_of_type(option.field.annotation)}".strip()
        topics.setdefault(heading, []).append(Option(names, _default(standing[flag]), meaning))
    own = topics.pop("", [])
    command = [*_OF_EVERY_CONFIGURATION, *([_JSON] if name == "eval" else [])]
    return Command(name, title, "[OPTIONS]", [(f"Of {name} alone", own), *topics.items(), ("Command", command)], "")


def _of_type(kind: Any) -> str:
    """Return what values of an option look like."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "{" + ", ".join(map(str, inner)) + "}"
    if origin is typing.Annotated:
        return _of_type(inner[0])
    if origin in (typing.Union, types.UnionType):
        return "|".join(_of_type(one) for one in inner if one is not type(None))
    if origin is dict:
        return "KEY=VALUE ..."
    if origin is tuple:
        return f"{_of_type(inner[0])} ..." if Ellipsis in inner else " ".join(map(_of_type, inner))
    return _WORDS[kind]


def _default(value: object) -> str:
    if value is False or value == {}:
        return ""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def page(command: Command) -> str:
    """Return the text of a page."""
    about = ABOUT[command.name]
    parts = [
        f"# llmgym {command.name}",
        f"{command.title.rstrip('.')}.",
        f"```console\n$ llmgym {command.name} {command.synopsis}\n```".replace(" \n", "\n"),
        command.notes,
        f"See [{_name_of(about.page)}]({about.page})." if about.page else "",
        _EVERY_TRAINING if command.trains else "",
    ]
    for heading, options in command.topics:
        if options:
            parts.append(f"## {heading}\n\n{''.join(_table(options))}".rstrip())
    parts.append(f"## Exit codes\n\n| code | meaning |\n|---|---|\n{_exit_codes(command)}")
    return "\n\n".join(filter(None, parts)) + "\n"


def _name_of(link: str) -> str:
    """Return the title of the page, or of the part of it, that a link of a page leads to."""
    file, _, anchor = link.partition("#")
    titles = re.findall(r"^#+ (.*)$", (FOLDER / file).read_text(encoding="utf-8"), re.MULTILINE)
    wanted = [one for one in titles if not anchor or re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") == anchor]
    return str(wanted[0])


def _table(options: Iterable[Option]) -> Iterator[str]:
    yield "| | default | meaning |\n|---|---|---|\n"
    for flags, default, meaning in options:
        shown = default if default in ("", "required") else f"`{default}`"
        yield f"| `{_cell(flags)}` | {_cell(shown)} | {_cell(meaning)} |\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _exit_codes(command: Command) -> str:
    if command.trains:
        return _TRAINS
    fails = f"| 1 | {ABOUT[command.name].exit_1} |\n" if ABOUT[command.name].exit_1 else ""
    return f"| 0 | all is well |\n{fails}| 2 | a mistake that the message explains |\n| 130 | it was ended by Ctrl-C |"


def table(found: Iterable[Command]) -> str:
    """Return the page that lists all commands."""
    rows = [
        f"| [`llmgym {one.name}`]({one.name}.md) | {_cell(one.title.rstrip('.'))} | {'yes' if one.prints_json else ''} "
        f"| {ABOUT[one.name].exit_1} |"
        for one in found
    ]
    return f"""# Commands

`llmgym COMMAND --help` shows what these pages show. `python -m llmgym` is the same as `llmgym`, and
`python -m llmgym.agents.grpo` the same as `llmgym grpo`. `python -m tools.command_pages` makes these pages from the
commands themselves.

The exit code is 0 if all is well, 1 if something was looked into and is not as it should be, 2 for a mistake that the
message on standard error explains, 130 if Ctrl-C ended the command, and 141 if whoever read its output left, as `head`
does. Training has a few more, which its pages name. With `--json` a command prints its result alone, and the rest goes
to standard error.

| command | what it does | `--json` | exit code 1 |
|---|---|---|---|
{chr(10).join(rows)}
"""


def main(arguments: list[str] | None = None) -> int:
    """Write the pages, or say which are out of date; returns the exit code, 1 if some are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if a page is out of date")
    check = parser.parse_args(arguments).check
    found = commands()
    pages = {"README.md": table(found), **{f"{one.name}.md": page(one) for one in found}}
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    old = [name for name in {**pages, **there} if pages.get(name) != there.get(name)]
    for name in old:
        if check:
            print(f"docs/commands/{name}: out of date; run python -m tools.command_pages")
        elif name in pages:
            (FOLDER / name).write_text(pages[name], encoding="utf-8")
        else:
            (FOLDER / name).unlink()
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main())

"""``llmgym doctor``: what is installed here and would be used, as a table."""

import argparse
import dataclasses
import json

from rich.markup import escape
from rich.table import Table

from llmgym import doctor
from llmgym.cli.options import Commands
from llmgym.report.console import make_console


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("doctor", help="show what is installed, what a run would use, and what is missing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Look, and print what was found; returns the exit code, which is 1 if llmgym itself lacks a package."""
    found = doctor.look()
    if options.json:
        packages = [dataclasses.asdict(one) for one in found.packages]
        print(json.dumps({**found.facts, "packages": packages}, indent=2))
    else:
        _show(found)
    return 1 if found.broken else 0


def _show(found: "doctor.Installation") -> None:
    console = make_console()
    for name, fact in found.facts.items():
        console.print(f"{name:>8}  {fact}", markup=False, soft_wrap=True)
    table = Table("extra", "missing", title="extras: pip install 'llmgym-rl[EXTRA]'")
    for extra, missing in found.extras.items():
        table.add_row(escape(extra), escape(", ".join(map(_in_words, missing)) or "nothing"))
    console.print(table)
    for one in found.broken:
        console.print(f"llmgym needs {_in_words(one)}.", style="red", markup=False, soft_wrap=True)


def _in_words(package: "doctor.Package") -> str:
    here = "not installed" if package.found is None else f"{package.found} is here"
    return f"{package.name}{package.wanted} ({here})"

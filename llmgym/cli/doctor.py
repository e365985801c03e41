"""``llmgym doctor``: what is installed here and would be used, or where the time of a run goes."""

import argparse
import dataclasses
import json
import os
from pathlib import Path

from rich.table import Table

from llmgym import doctor
from llmgym.cli.options import Commands
from llmgym.config.plain import read_yaml
from llmgym.errors import DataError, RunDirectoryError
from llmgym.report.console import make_console
from llmgym.view.metrics import MetricsFile

_ADVICE = 3  # that is shown


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("doctor", help="show what is installed and missing, or where the time of a run goes")
    parser.add_argument("run_directory", nargs="?", type=Path, metavar="RUN", help="a run, which may be going on")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Look, and print what was found; returns the exit code, which is 1 if llmgym itself lacks a package."""
    if options.run_directory is not None:
        found = _diagnosis(options.run_directory)
        if options.json:
            print(json.dumps(dataclasses.asdict(found), indent=2))
        else:
            _show_diagnosis(found)
        return 0
    installed = doctor.look()
    if options.json:
        packages = [dataclasses.asdict(one) for one in installed.packages]
        print(json.dumps({**installed.facts, "packages": packages}, indent=2))
    else:
        _show_installation(installed)
    return 1 if installed.broken else 0


def _diagnosis(run: Path) -> "doctor.Diagnosis":
    path, options = run.expanduser() / "metrics.jsonl", run.expanduser() / "config.yaml"
    if not (path.is_file() and options.is_file()):
        raise RunDirectoryError(f"{str(run)!r}: expected the directory of a run, with metrics.jsonl and config.yaml.")
    measured = MetricsFile(path)
    measured.refresh()
    rows = [{name: value for name, value in row.items() if value is not None} for row in measured.steps]
    if not rows:
        raise RunDirectoryError(f"{str(run)!r}: expected a run that has taken a step, got none in metrics.jsonl.")
    try:
        return doctor.diagnose(rows, read_yaml(options), os.cpu_count() or 1)
    except DataError as error:
        raise DataError(f"{str(run)!r}: {error}") from None


def _show_diagnosis(found: "doctor.Diagnosis") -> None:
    console = make_console()
    table = Table("", "s/step", "share", "", title=f"{found.seconds:.2f} s per step, over {found.steps} steps")
    for name, seconds in sorted(found.phases.items(), key=lambda one: -one[1]):
        if seconds > 0:
            table.add_row(
                name.replace("_", " "), f"{seconds:.3f}", f"{seconds / found.seconds:.0%}", doctor.PHASES[name]
            )
    console.print(table)
    share = found.phases[found.bound] / found.seconds
    console.print(f"It is bound by {found.bound.replace('_', ' ')}: {share:.0%} of the time.")
    for one in found.advice[:_ADVICE]:
        gives = "" if one.seconds is None else f" {found.seconds:.2f} to about {one.seconds:.2f} s per step:"
        console.print(f"{one.option}:{gives} {one.why}.", soft_wrap=True)
    if not found.advice:
        console.print("No option here would change much.")


def _show_installation(found: "doctor.Installation") -> None:
    console = make_console()
    for name, fact in found.facts.items():
        console.print(f"{name:>8}  {fact}", soft_wrap=True)
    table = Table("extra", "missing", title="extras: pip install 'llmgym-rl[EXTRA]'")
    for extra, missing in found.extras.items():
        table.add_row(extra, ", ".join(map(_in_words, missing)) or "nothing")
    console.print(table)
    for one in found.broken:
        console.print(f"llmgym needs {_in_words(one)}.", style="red", soft_wrap=True)


def _in_words(package: "doctor.Package") -> str:
    here = "not installed" if package.found is None else f"{package.found} is here"
    return f"{package.name}{package.wanted} ({here})"

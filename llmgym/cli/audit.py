"""``llmgym audit``: what earns more than it should, as a table and in sentences."""

import argparse
import dataclasses
import json
from typing import Any

from rich.console import Console
from rich.table import Table

from llmgym.audit import AuditReport, audit
from llmgym.cli.options import Commands, add_environment, add_json, env_kwargs, prints_apart
from llmgym.report.console import make_console


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("audit", help="look for rewards that can be earned without doing the task")
    add_environment(parser, seeds=50)
    parser.add_argument("--scorer", help="audit a scorer in place of the environment's own")
    parser.add_argument(
        "--judge", metavar="FILE", help="audit a judge in place of it, also by what is known to fool judges"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Audit, and print what was seen; returns the exit code."""
    console = make_console()
    console.stderr = options.json
    with prints_apart(as_json=options.json), console.status("audit") as status:  # shown on a terminal only
        report = audit(
            options.env,
            env_kwargs=env_kwargs(options),
            scorer=options.scorer,
            judge=options.judge,
            seeds=options.seeds,
            watch=lambda step: status.update(console.render_str(f"{options.env}: {step}")),
        )
    if options.json:
        print(json.dumps({"env": options.env, **_plain(report)}, indent=2))
    else:
        show(report, options.env, console)
    return 1 if report.findings else 0


def _plain(report: AuditReport) -> dict[str, Any]:
    """Return a report as JSON holds it."""
    rows = [
        {
            "probe": row.probe,
            "episodes": len(row.episodes),
            "mean": row.mean,
            "highest": max(row.rewards, default=None),
            "tops": row.tops,
            "success": row.success,
        }
        for row in report.rows
    ]
    return {"rows": rows, "findings": [*map(dataclasses.asdict, report.findings)], "notes": [*report.notes]}


def show(report: AuditReport, title: str, console: Console) -> None:
    """Print a report."""
    found = {finding.probe: finding.kind for finding in reversed(report.findings)}
    table = Table("probe", "mean reward", "highest", "top", "success", "finding", title=title)
    for row in report.rows:
        mean, highest = ("-", "-") if row.mean is None else (f"{row.mean:.3f}", f"{max(row.rewards):.3f}")
        tops = f"{row.tops}/{len(row.episodes)}"
        table.add_row(row.probe, mean, highest, tops, f"{row.success:.0%}", found.get(row.probe, ""))
    console.print(table)
    for note in report.notes:
        console.print(note, soft_wrap=True)
    for number, finding in enumerate(report.findings, start=1):
        console.print(f"{number}. {finding.kind}: {finding.sentence}\n   {finding.shown}", soft_wrap=True)
    if not report.findings:
        console.print("No findings.")

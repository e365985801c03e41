"""``llmgym report``: what a run did, as one file that opens offline and can be mailed."""

import argparse
import json
from pathlib import Path

from llmgym import view
from llmgym.cli.options import Commands, count
from llmgym.report.console import say


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("report", help="write the pages of runs as one file that opens offline")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the directory of a run or of an evaluation")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), help="the file (default: report.html)"
    )
    parser.add_argument("--episodes", type=count, default=16, help="of each step, in whole groups (default: 16)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the file; returns the exit code."""
    runs = view.open_runs(options.runs)
    for one in runs:
        one.refresh()
    written = view.write_report(runs, options.output, options.episodes)
    size = options.output.stat().st_size
    faults = [fault for one in runs for fault in one.faults]
    if options.json:
        print(json.dumps({"path": str(options.output), "episodes": written, "bytes": size, "faults": faults}))
        return 0
    say("\n".join([*faults, f"{options.output}: {written:,} episodes, {size / 2**20:.1f} MiB."]))
    return 0

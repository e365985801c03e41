"""``llmgym export``: stored episodes as training data, in the columns that TRL reads too."""

import argparse
import dataclasses
import json
from pathlib import Path

from llmgym import evals
from llmgym.cli.options import EPISODES, Commands
from llmgym.report.console import notify

_EPILOG = """Conditions are about score, success, pass_rate and mean_score of the task, samples, turns, tokens, ending,
cut_off, failed, step, seed, row, seat, and the parts of the score by name."""


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("export", help="write stored episodes as training data", epilog=EPISODES + _EPILOG)
    parser.add_argument("source", metavar="SOURCE", help="a directory of episodes, RUN or RUN@STEP")
    parser.add_argument(
        "--format",
        required=True,
        choices=("sft", "dpo", "kto", "prompts", "jsonl"),
        help="sft: conversations; dpo: the best and the worst episode of each task; kto: good episodes and bad ones; "
        "prompts: the beginning of each task; jsonl: all that is known of each episode",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="a file that ends with .parquet or .jsonl")
    parser.add_argument("--where", help="a condition on episodes, such as 'score > 0.8' or '0 < pass_rate < 1'")
    parser.add_argument("--label", help="which episodes are good ones, for kto (default: success)")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the file; returns the exit code."""
    stored = evals.stored(options.source)
    found = evals.export(stored, options.format, options.output, where=options.where, label=options.label)
    if options.json:
        print(json.dumps(dataclasses.asdict(found), indent=2))
        return 0
    left_out = {
        "unfinished": found.unfinished,
        "left out by --where": found.filtered,
        "tasks without a pair": found.alike,
    }
    rest = "".join(f", {count} {what}" for what, count in left_out.items() if count)
    rows = "1 row" if found.rows == 1 else f"{found.rows} rows"
    notify(f"{options.output}: {rows} from {found.episodes} episodes{rest}.", warning=False)
    return 0

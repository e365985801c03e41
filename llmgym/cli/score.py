"""``llmgym score``: stored episodes under another scorer, and what that changes."""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.table import Table

from llmgym import evals
from llmgym.cli.options import EPISODES, Commands, prints_apart, whole
from llmgym.report.console import make_console, say

_LONGEST = 300  # characters of a reply

_EPILOG = "They are played again with the replies that they had. Nothing is sampled, and nothing on disk is changed."


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "score", help="score stored episodes again with another scorer", epilog=EPISODES + _EPILOG
    )
    parser.add_argument("source", metavar="SOURCE", help="a directory of episodes, RUN or RUN@STEP")
    parser.add_argument("--scorer", required=True, help="as training takes it")
    parser.add_argument("--data", type=Path, help="the rows that episodes are about, if not those of the run")
    parser.add_argument("--show", type=whole, default=2, help="episodes shown whose score changed most (default: 2)")
    parser.add_argument("--json", action="store_true", help="print the result alone, as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Score; returns the exit code."""
    with prints_apart(as_json=options.json):
        found = evals.rescore(evals.stored(options.source), options.scorer, data=options.data).plain(options.show)
    after = found["after"]
    if options.json:
        print(json.dumps(found, indent=2))
    elif after["reward"] is None:
        reason = f"llmgym score: none of {found['episodes']} episodes has a score: {after['reason']}"
        say(reason, stderr=True)
    else:
        _show(found, options.scorer)
    return int(after["reward"] is None)


def _show(found: dict[str, Any], scorer: str) -> None:
    console = make_console()
    before, after = found["before"], found["after"]
    table = Table("", "before", scorer, title=f"{found['episodes']} episodes of {found['tasks']} tasks")
    table.add_row("reward", _number(before["reward"]), _number(after["reward"]))
    table.add_row("without a score", str(before["unscored"]), str(after["unscored"]))
    for name in {**after["parts"], **before["parts"]}:
        cells = [_number(side["parts"].get(name)) for side in (before, after)]
        table.add_row(name, *cells)
    console.print(table)
    sentences = [_pairs(found["pairs"])]
    if after["reason"]:
        sentences.append(f"Most often there is no score because {after['reason']}.")
    if found["unfinished"]:
        sentences.append(f"{found['unfinished']} episodes are left out: their environment never ended them.")
    if found["changed"]:
        sentences.append(f"{found['changed']} episodes are left out: their environment no longer says what it said.")
    for one in found["largest"]:
        moved = f"{_number(one['before'])} to {_number(one['after'])}"
        sentences.append(f"{one['task']}, sample {one['sample']}: {moved}: {one['reply'][:_LONGEST]}")
    for sentence in sentences:
        console.print(sentence, soft_wrap=True)


def _pairs(pairs: dict[str, int]) -> str:
    both = pairs["same_order"] + pairs["other_order"]
    return (
        f"Of {sum(pairs.values())} pairs of siblings, {both} differ in both scores, {pairs['same_order']} of them in "
        f"the same order; {pairs['only_before']} differed before and are equal now, and {pairs['only_after']} were "
        "equal before and differ now."
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

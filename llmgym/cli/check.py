"""``llmgym check``: whether an environment keeps the promises that training relies on, as a table."""

import argparse
import json
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from llmgym.cli.options import Commands, add_environment, add_json, env_kwargs, prints_apart
from llmgym.envs.checker import CHECKS
from llmgym.errors import EnvironmentContractError
from llmgym.registry import make_env
from llmgym.report.console import make_console


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("check", help="check an environment: Gymnasium's contract, purity, its expert")
    add_environment(parser, seeds=20)
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check until something fails; returns the exit code."""
    console = make_console()
    console.stderr = options.json
    with prints_apart(as_json=options.json):
        result = _checked(options, console)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        _show(result, console)
    return 0 if result["failure"] is None else 1


def _checked(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Return what was checked, and the failure that ended it if there was one."""
    env = make_env(options.env, **env_kwargs(options))
    failure, checked = None, []
    for number, check in enumerate(CHECKS, start=1):
        began = time.perf_counter()
        with console.status(f"{number}/{len(CHECKS)} {check.name}"):  # shown on a terminal only
            try:
                result = check.run(env, options.seeds)
            except EnvironmentContractError as error:
                failure, result = str(error), "failed"
        checked.append({"check": check.name, "result": result, "seconds": round(time.perf_counter() - began, 3)})
        if failure is not None:
            break
    return {"env": options.env, "checks": checked, "failure": failure}


def _show(result: dict[str, Any], console: Console) -> None:
    table = Table("check", "result", "seconds", title=result["env"])
    for one in result["checks"]:
        table.add_row(one["check"], one["result"], f"{one['seconds']:.2f}")
    console.print(table)
    if result["failure"] is None:
        console.print(f"{result['env']}: all checks passed.", soft_wrap=True)
    else:
        console.print(result["failure"], style="red", soft_wrap=True)

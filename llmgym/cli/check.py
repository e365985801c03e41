"""``llmgym check``: whether an environment keeps the promises that training relies on, as a table."""

import argparse
import time

from rich.table import Table

from llmgym.cli.options import Commands, add_environment, env_kwargs, printable
from llmgym.envs.checker import CHECKS
from llmgym.errors import EnvironmentContractError
from llmgym.registry import make_env
from llmgym.report.console import make_console


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("check", help="check an environment: Gymnasium's contract, purity, its expert")
    add_environment(parser, seeds=20)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check until something fails; returns the exit code."""
    console = make_console()
    table = Table("check", "result", "seconds", title=options.env)
    env = make_env(options.env, **env_kwargs(options))
    failure = None
    for number, check in enumerate(CHECKS, start=1):
        began = time.perf_counter()
        with console.status(f"{number}/{len(CHECKS)} {check.name}"):  # shown on a terminal only
            try:
                result = check.run(env, options.seeds)
            except EnvironmentContractError as error:
                failure, result = error, "failed"
        table.add_row(check.name, result, f"{time.perf_counter() - began:.2f}")
        if failure:
            break
    console.print(table)
    if failure:
        console.print(printable(str(failure)), style="red", markup=False, soft_wrap=True)
        return 1
    console.print(f"{options.env}: all checks passed.", markup=False, soft_wrap=True)
    return 0

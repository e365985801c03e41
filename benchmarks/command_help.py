"""How long ``--help`` of every command takes, until the process has ended, beside the imports that none can do without.

``python -m benchmarks.command_help``; the first round writes bytecode and does not count.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from benchmarks.results import Claim, claim_table, processor
from llmgym.cli.script import COMMANDS, agents

BARE = [sys.executable, "-c", "import gymnasium, pydantic, tyro; pydantic.BaseModel"]
"""What Gymnasium's ids, configurations and command lines stand on."""


def seconds(command: Sequence[str], environment: dict[str, str]) -> tuple[float, float]:
    """Run a command; return its time by the clock and that of the processor."""
    begun, before = time.perf_counter(), os.times()
    subprocess.run(command, stdout=subprocess.DEVNULL, env=environment, check=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - begun, used


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    names = ["", *COMMANDS, "eval", "train", *agents()]
    sides = {name: [sys.executable, "-m", "llmgym", *name.split(), "--help"] for name in names}
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as bytecode:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode, "PYTHONDONTWRITEBYTECODE": ""}
        for repeat in range(1 + repeats):
            for name, command in {**sides, "imports": BARE}.items():
                took = seconds(command, environment)
                if repeat:
                    found.setdefault(name, []).append(took)
    print(f"{processor()}; medians of {repeats} interleaved repeats.\n")
    wall, cpu = (
        {name: statistics.median(one[kind] for one in times) for name, times in found.items()} for kind in (0, 1)
    )
    claims = [
        Claim(f"seconds of `{' '.join(['llmgym', *name.split(), '--help'])}`", 1.0, wall[name], False, cpu[name])
        for name in sides
    ]
    print(claim_table(claims))
    slowest = max(sides, key=lambda name: wall[name])
    print(
        f"\n`import gymnasium, pydantic, tyro` alone takes {wall['imports']:.2f} s ({cpu['imports']:.2f} in CPU time),"
    )
    print(f"and the slowest, `llmgym {slowest} --help`, {wall[slowest] / wall['imports']:.2f} times as long.")


if __name__ == "__main__":
    main()

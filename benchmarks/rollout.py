"""How fast episodes are sampled: llmgym's embedded engine beside its peers.

``python -m benchmarks.rollout --help``; README.md in this folder says what is compared.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.processes import Side
from benchmarks.work import Outcome, Work

TITLES = {
    "ours": "llmgym",
    "generate": "transformers generate",
    "generate_batch": "transformers continuous batching",
    "trl_grpo": "TRL GRPOTrainer",
    "sglang_cpu": "SGLang on CPU",
}


@dataclass
class Measurement:
    """The repeats of one side at one work."""

    side: str
    dtype: str
    work: str
    sampled: int
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(outcome.seconds for outcome in self.outcomes)

    @property
    def microseconds_per_token(self) -> float:
        """The median, by sampled token."""
        return self.seconds / self.sampled * 1e6


@dataclass(frozen=True)
class Claim:
    """A ratio that the project promises.

    Attributes:
        text: What is compared.
        claimed: The bound.
        measured: The ratio that was found.
        at_least: Whether the bound is a lower one.
    """

    text: str
    claimed: float
    measured: float
    at_least: bool

    @property
    def kept(self) -> bool:
        """Whether the promise is kept."""
        return self.measured >= self.claimed if self.at_least else self.measured <= self.claimed


class Table:
    """All that was measured, by side, type and work."""

    def __init__(self) -> None:
        self.cells: dict[tuple[str, str, str], Measurement] = {}
        self.versions: dict[str, str] = {}

    def get(self, side: str, work: str, dtype: str = "float32") -> Measurement | None:
        """Return a measurement, if it was taken."""
        return self.cells.get((side, dtype, work))


def measure(
    table: Table, sides: Sequence[tuple[str, str]], works: Sequence[Work], repeats: int, model: Path, logs: Path
) -> None:
    """Run every side at every work, interleaved: one repeat of all of them after the other.

    Args:
        table: Takes the measurements.
        sides: Names and types.
        works: What they do.
        repeats: How often; one more for each side warms it up, with its first work, uncounted.
        model: The directory of the model.
        logs: Where what the sides' libraries print goes.
    """
    with contextlib.ExitStack() as stack:
        running: list[Side] = []
        for name, dtype in sides:
            side = stack.enter_context(Side(name, model, dtype, logs / f"{name}-{dtype}.log"))
            table.versions |= side.versions
            side.run(works[0])
            running.append(side)
        for repeat in range(repeats):
            for work in works:
                for side in running:
                    empty = Measurement(side.name, side.dtype, work.name, work.sampled)
                    cell = table.cells.setdefault((side.name, side.dtype, work.name), empty)
                    cell.outcomes.append(side.run(work))
                    seconds = cell.outcomes[-1].seconds
                    print(f"{repeat + 1}/{repeats} {work.name} {side.name} {side.dtype} {seconds:.2f}", file=sys.stderr)


def claims(table: Table) -> list[Claim]:
    """Return what can be said of the project's promises with what was measured."""
    found = []

    def ratio(text: str, claimed: float, over: Measurement | None, under: Measurement | None, at_least: bool) -> None:
        if over and under:
            measured = over.microseconds_per_token / under.microseconds_per_token
            found.append(Claim(text, claimed, measured, at_least))

    for work, peer, factor in (
        ("even", "generate", 2.0),
        ("even", "trl_grpo", 2.0),
        ("ragged", "generate", 3.0),
        ("ragged", "trl_grpo", 3.0),
        ("ragged", "sglang_cpu", 2.3),
    ):
        ratio(f"{TITLES[peer]} / llmgym, {work}", factor, table.get(peer, work), table.get("ours", work), True)
    for work, factor in (("even", 3.0), ("ragged", 4.5)):
        ours, peer = table.get("ours", work, "bfloat16"), table.get("generate", work, "bfloat16")
        ratio(f"transformers generate / llmgym, {work}, both bfloat16", factor, peer, ours, True)
    ours, more = table.get("ours", "even"), table.get("ours", "even, 512 episodes")
    ratio("512 episodes / 128, seconds by token", 1.0, more, ours, False)
    few, many = table.get("ours", "4 turns"), table.get("ours", "32 turns")
    ratio("32 turns / 4, seconds by token", 1.2, many, few, False)
    return found


def report(table: Table, parameters: int) -> str:
    """Return the tables as Markdown."""
    lines = [
        f"{processor()}, {os.cpu_count()} cores, one thread a side; Python {platform.python_version()}, "
        + ", ".join(f"{name} {version}" for name, version in sorted(table.versions.items()))
        + f". A random Qwen2 of {parameters:,} parameters.",
        "",
        "| work | side | type | median s | all s | us by sampled token | of llmgym's time | peak MiB | of them the rollout's |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (side, dtype, work), cell in sorted(table.cells.items(), key=lambda item: (item[0][2], item[0][1], item[1].seconds)):
        ours = table.get("ours", work, dtype)
        times = f"{cell.seconds / ours.seconds:.2f}" if ours else ""
        peak = max(outcome.peak_mib for outcome in cell.outcomes)
        lines.append(
            f"| {work} | {TITLES[side]} | {dtype} | {cell.seconds:.2f} "
            f"| {' '.join(f'{outcome.seconds:.2f}' for outcome in cell.outcomes)} "
            f"| {cell.microseconds_per_token:.0f} | {times} | {peak:.0f} | {peak - cell.outcomes[0].loaded_mib:.0f} |"
        )
    lines += ["", "| claim | claimed | measured | |", "|---|---|---|---|"]
    for claim in claims(table):
        bound = f"{'>=' if claim.at_least else '<='} {claim.claimed}"
        lines.append(f"| {claim.text} | {bound} | {claim.measured:.2f} | {'PASS' if claim.kept else 'miss'} |")
    return "\n".join(lines)


def processor() -> str:
    """Return the processor's name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def main() -> None:
    """Measure, and print the tables."""
    from benchmarks import model as made

    sections: dict[str, Callable[[], tuple[list[tuple[str, str]], list[Work]]]] = {
        "float32": lambda: (
            [(name, "float32") for name in only],
            [made.triage("even", (48, 48)), made.triage("ragged", (8, 96))],
        ),
        "bfloat16": lambda: (
            [(name, "bfloat16") for name in ("ours", "generate") if name in only],
            [made.triage("even", (48, 48)), made.triage("ragged", (8, 96))],
        ),
        "episodes": lambda: (
            [("ours", "float32")],
            [made.triage("even", (48, 48)), made.triage("even, 512 episodes", (48, 48), prompts=64)],
        ),
        "turns": lambda: ([("ours", "float32")], [made.many_turns(4), made.many_turns(32)]),
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(TITLES), help="sides, separated by commas")
    parser.add_argument("--sections", default=",".join(sections), help="parts of the benchmark, separated by commas")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args()
    only = arguments.only.split(",")

    table = Table()
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        parameters = made.write_model(directory / "model")
        for section in arguments.sections.split(","):
            sides, works = sections[section]()
            measure(table, sides, works, arguments.repeats, directory / "model", directory)
    print(report(table, parameters))
    if arguments.json:
        cells = [asdict(cell) | {"seconds": cell.seconds} for cell in table.cells.values()]
        for cell in cells:
            for outcome in cell["outcomes"]:
                del outcome["lengths"]
        figures = {"versions": table.versions, "measurements": cells, "claims": [asdict(c) for c in claims(table)]}
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()

"""What was measured, what was promised, and the tables that say so."""

import contextlib
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import Outcome


@dataclass
class Measurement:
    """The repeats of one side at one work.

    Attributes:
        side: Who did it.
        dtype: The type of the weights.
        work: What was done.
        sampled: Tokens that it sampled.
        loaded_mib: Resident memory before the first work, at its highest.
        outcomes: What each repeat cost.
    """

    side: str
    dtype: str
    work: str
    sampled: int
    loaded_mib: float
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(outcome.seconds for outcome in self.outcomes)

    @property
    def cpu_seconds(self) -> float:
        """The median."""
        return statistics.median(outcome.cpu_seconds for outcome in self.outcomes)

    @property
    def microseconds_per_token(self) -> float:
        """The median, by sampled token."""
        return self.seconds / self.sampled * 1e6

    @property
    def peak_mib(self) -> float:
        """The highest resident memory, of this work or one before it in the same process."""
        return max(outcome.peak_mib for outcome in self.outcomes)


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


def processor() -> str:
    """Return the processor's name and how many cores there are."""
    name = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores"


def measurement_table(measurements: Sequence[Measurement], titles: dict[str, str]) -> str:
    """Return the medians as Markdown, each beside what llmgym took for the same work in the same type."""
    ours = {(cell.work, cell.dtype): cell for cell in measurements if cell.side == "ours"}
    lines = [
        "| work | side | type | median s | by llmgym's | every repeat | CPU s | us/token | peak MiB | above load |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in measurements:
        base = ours.get((cell.work, cell.dtype))
        cells = (
            cell.work,
            titles[cell.side],
            cell.dtype,
            f"{cell.seconds:.2f}",
            f"{cell.seconds / base.seconds:.2f}" if base else "",
            " ".join(f"{outcome.seconds:.2f}" for outcome in cell.outcomes),
            f"{cell.cpu_seconds:.2f}",
            f"{cell.microseconds_per_token:.0f}",
            f"{cell.peak_mib:.0f}",
            f"{cell.peak_mib - cell.loaded_mib:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def claim_table(claims: Sequence[Claim]) -> str:
    """Return the claims as Markdown."""
    lines = ["| claim | promised | measured | |", "|---|---|---|---|"]
    for claim in claims:
        sign = "at least" if claim.at_least else "at most"
        verdict = "PASS" if claim.kept else "miss"
        lines.append(f"| {claim.text} | {sign} {claim.claimed} | {claim.measured:.2f} | {verdict} |")
    return "\n".join(lines)

"""How long a whole GRPO step takes, and in how much memory: llmgym beside TRL's `GRPOTrainer`.

``python -m benchmarks.step rollout.json update.json``: what rollout.py and update.py wrote with ``--json``.
"""

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import Claim, claim_table
from benchmarks.update import SIDES

_MEMORY = {"ours": 1.0, "ours_checkpointing": 0.5}  # of TRL's, which has checkpointing on by default
_SAMPLED_BY = {"ours_checkpointing": "ours"}  # checkpointing is of the update alone


@dataclass(frozen=True)
class WholeStep:
    """A rollout and the update after it, by one side.

    Attributes:
        side: Who did both.
        work: The episodes.
        dtype: The type of the matrix products.
        rollout_seconds: The median of the rollouts.
        update_seconds: The median of the updates.
        cpu_seconds: Processor time, the two medians added.
        peak_mib: The higher peak of the two processes. One process that did both would hold no less.
    """

    side: str
    work: str
    dtype: str
    rollout_seconds: float
    update_seconds: float
    cpu_seconds: float
    peak_mib: float

    @property
    def seconds(self) -> float:
        """The two added."""
        return self.rollout_seconds + self.update_seconds


def whole_steps(rollouts: dict[str, Any], updates: dict[str, Any]) -> list[WholeStep]:
    """Put together what the two scripts measured of the same episodes, with the same model and type.

    Raises:
        ValueError: They are not what the two scripts write, or had different processors or models, or sampled
            different numbers of tokens.
    """
    for script, figures, key in (("rollout", rollouts, "work"), ("update", updates, "episodes")):
        if not all(key in cell for cell in figures.get("measurements") or [{}]):
            raise ValueError(f"Expected what benchmarks.{script} writes with --json, got something else.")
    for key in ("processor", "model"):
        if rollouts[key] != updates[key]:
            raise ValueError(f"Expected one {key} in both files, got {rollouts[key]!r} and {updates[key]!r}.")
    steps = []
    for update in updates["measurements"]:
        work, dtype, side = update["episodes"], updates["dtype"], update["side"]
        for rollout in rollouts["measurements"]:
            if (rollout["work"], rollout["dtype"], rollout["side"]) != (work, dtype, _SAMPLED_BY.get(side, side)):
                continue
            if rollout["sampled"] != updates["sampled"][work]:
                raise ValueError(
                    f"Expected the same episodes {work!r} in both files, got {rollout['sampled']} sampled tokens "
                    f"in the rollout and {updates['sampled'][work]} in the update."
                )
            outcomes = rollout["outcomes"]
            cpu = statistics.median(o["cpu_seconds"] for o in outcomes) + statistics.median(update["cpu_seconds"])
            peak = max(update["peak_mib"], *(o["peak_mib"] for o in outcomes))
            steps.append(WholeStep(side, work, dtype, rollout["median_seconds"], update["median_seconds"], cpu, peak))
    return steps


def claims(steps: list[WholeStep]) -> list[Claim]:
    """Return what the steps say of the promise: half of TRL's time and, with checkpointing as in TRL, of its memory."""
    theirs = {step.work: step for step in steps if step.side == "trl_grpo"}
    answers = []
    for ours in steps:
        if ours.side not in _MEMORY or ours.work not in theirs:
            continue
        other = theirs[ours.work]
        end = f"{SIDES[other.side]}'s, a whole step, {ours.dtype}, {ours.work}"
        cpu = ours.cpu_seconds / other.cpu_seconds
        time, memory = ours.seconds / other.seconds, ours.peak_mib / other.peak_mib
        answers.append(Claim(f"time of {SIDES[ours.side]} by {end}", 0.5, time, False, cpu))
        answers.append(Claim(f"peak memory of {SIDES[ours.side]} by {end}", _MEMORY[ours.side], memory, False))
    return answers


def table(steps: list[WholeStep]) -> str:
    """Return the steps as Markdown."""
    lines = [
        "| work | side | type | rollout s | update s | step s | CPU s | peak MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {step.work} | {SIDES[step.side]} | {step.dtype} | {step.rollout_seconds:.2f} | {step.update_seconds:.2f} "
        f"| {step.seconds:.2f} | {step.cpu_seconds:.2f} | {step.peak_mib:.0f} |"
        for step in steps
    ]
    return "\n".join(lines)


def main() -> None:
    """Read the two files, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rollout", type=Path, help="what benchmarks.rollout wrote with --json")
    parser.add_argument("update", type=Path, help="what benchmarks.update wrote with --json")
    arguments = parser.parse_args()
    rollouts, updates = (json.loads(path.read_text()) for path in (arguments.rollout, arguments.update))
    try:
        steps = whole_steps(rollouts, updates)
    except ValueError as error:
        parser.error(str(error))
    if not steps:
        parser.error("the two files have no side in common that did the same work in the same type")
    print(f"{updates['processor']}, one thread a side; {updates['model']}.\n")
    print(table(steps), claim_table(claims(steps)), sep="\n\n")


if __name__ == "__main__":
    main()

"""How fast a run on many engines is, by a simulation of its engines, environments, hand-overs and learner.

``python -m benchmarks.cluster_simulation`` prints tables of a planned scale, ``--picture PATH`` draws them, and
``--measure`` compares the simulation with runs that two cores can carry.
"""

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.simulated_run import Outcome, Plan, Work, simulate

# Assumptions about a machine that nobody here has measured: one GPU per engine and a model of about 1.5 billion weights
# in bfloat16. Put your own numbers in their place.
SLOTS = 128  # episodes that an engine has room for
BASE = 0.008  # seconds of a decode step, whatever is in flight: weights are read once
EACH = 0.00006  # seconds of a decode step per episode in flight
LEARN = 0.01  # seconds per 1000 learnt tokens, of a learner of about eight GPUs
HAND_OVER = 4.0  # seconds from the last update until engines have the weights
GROUPS, GROUP_SIZE, TURNS = 256, 8, 3  # of a step
REPLY_TOKENS, RAGGEDNESS, LONGEST = 400, 1.0, 4096  # mean of a log-normal, its sigma, and where replies are cut off
SLOW = 10.0  # mean seconds of an environment between two turns; exponential

ENGINES = (1, 4, 16, 64, 256)
STEPS, SKIPPED = 12, 3  # simulated steps, and how many of them only fill the pipeline
MODES: Mapping[str, Mapping[str, Any]] = {
    "staleness 0": {},
    "staleness 0, shares of a quarter": {"parts": 4},
    "staleness 1": {"staleness": 1},
    "staleness 2": {"staleness": 2},
    "staleness 1, partial": {"staleness": 1, "partial": True},
    "staleness 2, partial": {"staleness": 2, "partial": True},
}
_AHEAD = 2  # rollouts that a mode may be ahead by, at most
_LINES = [
    ("#2f6f9f", "o-"),
    ("#2f6f9f", "o:"),
    ("#c0602f", "s-"),
    ("#4f8a4f", "^-"),
    ("#c0602f", "s--"),
    ("#4f8a4f", "^--"),
]


def draw(
    steps: int,
    shape: tuple[int, int, int] = (GROUPS, GROUP_SIZE, TURNS),
    *,
    tokens: float = REPLY_TOKENS,
    sigma: float = RAGGEDNESS,
    wait: float = 0.0,
    seed: int = 0,
) -> Work:
    """Draw replies of log-normal lengths with a mean of `tokens`, cut off, and exponential waits with a mean of `wait`.

    Args:
        steps: How many; the first ones are the same, however many there are.
        shape: Groups of a step, episodes of a group, turns of an episode.
        tokens: Mean length.
        sigma: Of its logarithm; 0 for even lengths.
        wait: Mean seconds.
        seed: Of both.
    """
    lengths, waits = [], []
    for step in range(steps):
        rng = np.random.default_rng([seed, step])
        lengths.append(rng.lognormal(math.log(tokens) - sigma**2 / 2, sigma, shape))
        waits.append(rng.exponential(1.0, shape) * wait)
    return Work(np.clip(np.round(lengths), 1, LONGEST).astype(np.int64), np.array(waits))


def planned(engines: int, mode: str, work: Work) -> Outcome:
    """Simulate a setting of the planned scale."""
    options = dict(MODES[mode])
    parts = options.pop("parts", None)
    share = None if parts is None else math.ceil(GROUPS / engines / parts)
    plan = Plan(engines, SLOTS, BASE, EACH, LEARN, HAND_OVER, groups_at_once=share, **options)
    return simulate(plan, work, STEPS, SKIPPED)


Cells = Mapping[tuple[str, int, str], Outcome]


def sweep() -> Cells:
    """Simulate all settings: by what environments do, how many engines there are, and the mode."""
    waits = {"answer at once": 0.0, f"take {SLOW:g} s": SLOW}
    works = {name: draw(STEPS + _AHEAD, wait=wait) for name, wait in waits.items()}
    return {
        (name, engines, mode): planned(engines, mode, work)
        for name, work in works.items()
        for engines in ENGINES
        for mode in MODES
    }


def scale_table(cells: Cells) -> str:
    """Return steps per hour as Markdown, with the shares of time in which engines and the learner are idle."""
    lines = [f"| environments | engines | {' | '.join(MODES)} |", "|---" * (2 + len(MODES)) + "|"]
    for name, engines in dict.fromkeys(key[:2] for key in cells):
        outcomes = [cells[name, engines, mode] for mode in MODES]
        shown = [f"{one.steps_per_hour:.0f} ({one.engines_idle:.0%}, {one.learner_idle:.0%})" for one in outcomes]
        lines.append(f"| {name} | {engines} | {' | '.join(shown)} |")
    return "\n".join(lines)


def mode_table(cells: Cells, engines: int) -> str:
    """Return all that is known of the modes, of one number of engines, as Markdown."""
    lines = [
        "| environments | mode | steps per hour | engines idle | slots that decode | learner idle | staleness |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {mode} | {one.steps_per_hour:.0f} | {one.engines_idle:.0%} | {one.slots_filled:.0%} | "
        f"{one.learner_idle:.0%} | {one.staleness:.2f} |"
        for (name, many, mode), one in cells.items()
        if many == engines
    ]
    return "\n".join(lines)


def draw_idle(path: Path, cells: Cells) -> None:
    """Draw the share of time that engines are idle against their number, with that of the learner below."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(figure)
    names = list(dict.fromkeys(name for name, *_ in cells))
    grid = figure.subplots(2, len(names), sharex=True, sharey=True, squeeze=False)
    for column, name in enumerate(names):
        for row, (who, attribute) in enumerate({"engines": "engines_idle", "learner": "learner_idle"}.items()):
            axes = grid[row][column]
            for mode, (colour, line) in zip(MODES, _LINES, strict=True):
                shares = [100 * getattr(cells[name, engines, mode], attribute) for engines in ENGINES]
                axes.plot(ENGINES, shares, line, color=colour, linewidth=2, markersize=5, label=mode)
            axes.set_xscale("log", base=2)
            axes.set_xticks(ENGINES, [str(engines) for engines in ENGINES])
            axes.set(ylim=(0, 100), title=f"{who}, environments {name}")
            axes.grid(alpha=0.2)
            axes.spines[["top", "right"]].set_visible(False)
        grid[1][column].set_xlabel("engines")
    for row in grid:
        row[0].set_ylabel("% of time idle")
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110, format="png")


def main() -> None:
    """Print the planned scale, or compare with what is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true", help="compare with real runs, for about ten minutes")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of steps that are measured of each run")
    parser.add_argument("--picture", type=Path, help="PNG to draw")
    arguments = parser.parse_args()
    if arguments.measure:
        from benchmarks.cluster_measurement import compare

        print(compare(arguments.rounds))
        return
    cells = sweep()
    print(scale_table(cells), mode_table(cells, 16), sep="\n\n")
    if arguments.picture is not None:
        draw_idle(arguments.picture, cells)


if __name__ == "__main__":
    main()

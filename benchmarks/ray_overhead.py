"""What Ray adds to a training step: one rollout worker against the same work in the process that learns.

``python -m benchmarks.ray_overhead`` trains the demo's default steps in both ways, in turns, each side on one thread.
The worker and the process that learns wait for each other, so the ratio tells what the hand-overs cost.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import io
import statistics
import tempfile
import time

from benchmarks.results import Claim, claim_table, processor
from llmgym.agents import GRPO

ROUNDS = 9
TASKS = {"prompts_per_step": 16, "group_size": 8}  # as the demo has


def main() -> None:
    """Print the medians of both sides, and of the pairs' ratios."""
    with tempfile.TemporaryDirectory() as directory:
        options = {"eval_episodes": 0, "sample_every": 0, "output_dir": directory, **TASKS}
        begun = time.perf_counter()
        apart = GRPO(rollout_workers=1, **options)
        _ = apart.trainer
        started = time.perf_counter() - begun
        together = GRPO(**options)
        seconds: dict[str, list[float]] = {"in one process": [], "one rollout worker": []}
        sides = {"in one process": together, "one rollout worker": apart}
        for turn in range(ROUNDS + 1):
            for name in sorted(sides, reverse=bool(turn % 2)):
                with contextlib.redirect_stdout(io.StringIO()):
                    (metrics,) = sides[name].train(steps=1).metrics
                if turn:  # the first one warms up
                    seconds[name].append(metrics["seconds"])
        for agent in sides.values():
            agent.close()
    print(f"{processor()}, one thread a side; Ray and the worker took {started:.1f} s to start")
    for name, times in seconds.items():
        print(f"{name}: {statistics.median(times):.2f} s a step ({min(times):.2f} to {max(times):.2f})")
    ratio = statistics.median(there / here for here, there in zip(*seconds.values(), strict=True))
    print(claim_table([Claim("a step with one rollout worker by one without", 1.1, ratio, at_least=False)]))


if __name__ == "__main__":
    main()

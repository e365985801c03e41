"""What the probe after each hand-over of weights costs, and whether it raises a false alarm.

``python -m benchmarks.canary`` trains the demo's default steps on one thread, measures steps and probes in turns, and
hands over weights a thousand times, each time moved a little.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import tempfile
import time

import torch

from benchmarks.results import Claim, claim_table, processor
from llmgym.agents import GRPO
from llmgym.errors import EngineError

ROUNDS, HAND_OVERS = 5, 1000


def main() -> None:
    """Print the cost of a probe beside that of a step, and the largest difference that it found."""
    with tempfile.TemporaryDirectory() as directory:
        agent = GRPO(eval_episodes=0, sample_every=0, output_dir=directory, canary_every=0)
        steps, probes = [], []
        for _ in range(ROUNDS):
            steps.append(agent.train(steps=1).metrics[0]["seconds"])
            student = agent.trainer.student
            for version in range(20):
                begun = time.perf_counter()
                student._canary.check(version)
                probes.append(time.perf_counter() - begun)
        step, probe = statistics.median(steps), statistics.median(probes)
        generator, worst, alarms = torch.Generator().manual_seed(0), 0.0, 0
        for version in range(HAND_OVERS):
            with torch.no_grad():
                for parameter in student.model.parameters():
                    parameter += 1e-4 * torch.randn(parameter.shape, generator=generator)
            student.hand_over(version)
            try:
                worst = max(worst, student._canary.check(version))
            except EngineError:
                alarms += 1
        tolerance = student._canary.tolerance
        agent.close()
    print(f"{processor()}, one thread")
    print(f"a step {step:.2f} s, a probe {1000 * probe:.0f} ms")
    print(f"largest difference {worst:.2g} nats per token, allowed {tolerance:g}")
    print(
        claim_table(
            [
                Claim("a probe by a step of the demo, in per cent", 1.0, 100 * probe / step, at_least=False),
                Claim(f"false alarms in {HAND_OVERS} hand-overs", 0.0, float(alarms), at_least=False),
            ]
        )
    )


if __name__ == "__main__":
    main()

"""Every algorithm on the default task, at its default settings: one table.

    python -m benchmarks.algorithms                      # all, seeds 0 and 1 of those that promise both
    python -m benchmarks.algorithms ppo sppo --seeds 3   # some, with seeds of your own

Each run is the command that a user types, in a process of its own and one after the other,
since runs side by side would share processors. What is in the table comes from the run
directories. A run whose result is in ``results.jsonl`` of ``--output`` is not repeated,
so a benchmark that was interrupted goes on.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.results import processor


@dataclass(frozen=True)
class Promise:
    """What a run has to come to.

    Attributes:
        name: What is run, as the table calls it.
        agent: The agent's module.
        learns_from: In words.
        seeds: Of the runs.
        at_least: Held-out success after training.
        gain: Held-out success after training, above that before.
        scored_by: The run, by its name and seed, whose reward model is the only scorer; None
            for the environment's own.
    """

    name: str
    agent: str
    learns_from: str
    seeds: tuple[int, ...] = (0,)
    at_least: float = 0.0
    gain: float = 0.0
    scored_by: str | None = None


SCORES, PREFERENCES = "scores of its own episodes", "1,000 preference pairs"
PROMISES = (
    Promise("grpo", "grpo", SCORES, (0, 1), at_least=0.85),
    Promise("ppo", "ppo", SCORES, (0, 1), at_least=0.85),
    Promise("opo", "opo", SCORES, (0, 1), at_least=0.85),
    Promise("sppo", "sppo", SCORES, (0, 1), at_least=0.85),
    Promise("iterative_dpo", "iterative_dpo", SCORES, gain=0.2),
    Promise("spin", "spin", "demonstrations and its own episodes", gain=0.2),
    Promise("dpo", "dpo", PREFERENCES, gain=0.2),
    Promise("ipo", "ipo", PREFERENCES, gain=0.2),
    Promise("kto", "kto", PREFERENCES, gain=0.2),
    Promise("orpo", "orpo", PREFERENCES, gain=0.2),
    Promise("kl_dpo", "kl_dpo", PREFERENCES),
    Promise("reward_mle", "reward_mle", PREFERENCES),
    Promise("sft", "sft", "demonstrations"),
    Promise("reward_model", "reward_model", "6,600 preference pairs", at_least=0.9),
    Promise("opo, reward model", "opo", "a reward model's scores", at_least=0.7, scored_by="reward_model"),
    Promise("sppo, reward model", "sppo", "a reward model's scores", at_least=0.7, scored_by="reward_model"),
)
MINUTES = 8  # of training, for every run


@dataclass(frozen=True)
class Run:
    """What came out.

    Attributes:
        name: See `Promise`.
        seed: Of the run.
        steps: Training steps.
        before: Held-out success before training, or pairwise accuracy of a reward model.
        after: The same after training.
        training_seconds: Of all steps together.
        seconds: Of the whole command, evaluations included.
        path: The run directory.
    """

    name: str
    seed: int
    steps: int
    before: float
    after: float
    training_seconds: float
    seconds: float
    path: str

    def keeps(self, promise: Promise) -> bool:
        """Tell whether the run came to what was promised."""
        good = self.after >= promise.at_least and self.after - self.before >= promise.gain
        return good and self.training_seconds <= MINUTES * 60


def play(promise: Promise, seed: int, output: Path, runs: Sequence[Run]) -> Run:
    """Run the command of an agent and read what it left behind.

    Raises:
        RuntimeError: It failed, or the reward model that it needs has not been trained.
    """
    command = [sys.executable, "-m", f"llmgym.agents.{promise.agent}", "--env", "AIOpsTriage", "--seed", str(seed)]
    if promise.scored_by is not None:
        models = [run.path for run in runs if run.name == promise.scored_by]
        if not models:
            raise RuntimeError(f"{promise.name} needs a run of {promise.scored_by} before it.")
        command += ["--scorer", f"reward_model:{models[0]}/checkpoint"]
    directory = output / f"{promise.name.replace(', ', '-').replace(' ', '_')}-{seed}"
    log = directory.with_suffix(".log")
    begun = time.perf_counter()
    with log.open("w") as file:
        ended = subprocess.run([*command, "--output-dir", str(directory)], stdout=file, stderr=subprocess.STDOUT)
    seconds = time.perf_counter() - begun
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {ended.returncode}; see {log}.")
    return read(promise, seed, directory, seconds)


def read(promise: Promise, seed: int, directory: Path, seconds: float) -> Run:
    """Return what a run left behind in its output directory."""
    (path,) = directory.iterdir()
    metrics = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    evaluations = list(json.loads((path / "evaluations.json").read_text()).values())
    return Run(
        promise.name,
        seed,
        len(metrics),
        evaluations[0]["success"],
        evaluations[-1]["success"],
        sum(step["seconds"] for step in metrics),
        seconds,
        str(path),
    )


def table(runs: Sequence[Run], promises: Sequence[Promise]) -> str:
    """Return the runs as Markdown."""
    lines = [
        "| algorithm | learns from | seed | steps | before | after | training | promised | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for promise in promises:
        for run in sorted((run for run in runs if run.name == promise.name), key=lambda run: run.seed):
            wanted = f"{promise.at_least}" if promise.at_least else f"+{promise.gain}" if promise.gain else ""
            verdict = ("PASS" if run.keeps(promise) else "miss") if wanted else ""
            minutes = f"{int(run.training_seconds) // 60} min {int(run.training_seconds) % 60:02d} s"
            numbers = f"{run.seed} | {run.steps} | {run.before:.3f} | {run.after:.3f} | {minutes}"
            lines.append(f"| {promise.name} | {promise.learns_from} | {numbers} | {wanted} | {verdict} |")
    legend = "Before and after: held-out success; for reward_model, share of held-out pairs that it orders correctly."
    return "\n".join([*lines, "", legend])


def main() -> None:
    """Run what is asked for, print the table and what it was measured on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="as the table calls them; all if none is given")
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of those that are promised")
    parser.add_argument("--output", type=Path, default=Path("runs/algorithms"), help="where runs and results go")
    options = parser.parse_args()
    known = {promise.name: promise for promise in PROMISES}
    for name in options.names:
        if name not in known:
            parser.error(f"expected names among {', '.join(map(repr, known))}, got {name!r}")
    options.output.mkdir(parents=True, exist_ok=True)
    results = options.output / "results.jsonl"
    runs = [Run(**json.loads(line)) for line in results.read_text().splitlines()] if results.exists() else []
    for promise in (known[name] for name in options.names or known):
        for seed in options.seeds or promise.seeds:
            if any((run.name, run.seed) == (promise.name, seed) for run in runs):
                continue
            runs.append(play(promise, seed, options.output, runs))
            with results.open("a") as file:
                file.write(json.dumps(asdict(runs[-1])) + "\n")
            print(f"{promise.name}, seed {seed}: {runs[-1].before:.3f} -> {runs[-1].after:.3f}", flush=True)
    threads = os.environ.get("OMP_NUM_THREADS", "as many as there are cores")
    print(f"\n{processor()}, threads: {threads}\n\n{table(runs, PROMISES)}")


if __name__ == "__main__":
    main()

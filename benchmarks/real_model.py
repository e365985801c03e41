"""A real pretrained model learns: held-out tasks that SmolLM2-135M-Instruct fails, before and after GRPO.

    make test-real                                               # once: it makes the model, in .real-model
    OMP_NUM_THREADS=1 python -m benchmarks.real_model            # all weights, then LoRA
    OMP_NUM_THREADS=1 python -m benchmarks.real_model --only lora --dtype bfloat16

Every run is a process of its own: held-out episodes, training, the same held-out episodes again. One whose result is
in ``--output`` is not repeated. A run passes if success rises by at least 0.3, the 95 % interval of the paired
difference is above 0 and McNemar's exact test gives a p-value below 0.01, all within 40 minutes.
"""

import argparse
import json
import math
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.paired import PairedDifference
from benchmarks.results import processor
from benchmarks.where_is import WhereIs

RISE, P_VALUE, MINUTES = 0.3, 0.01, 40
SHOWN, BEGUN = 8, 50  # held-out tasks: quoted, and with a reply that is begun

SETTINGS: dict[str, Any] = {
    "env": "benchmarks.where_is:WhereIs",
    "steps": 40,
    "prompts_per_step": 8,
    "group_size": 8,
    "updates_per_step": 1,
    "max_tokens": 10,
    "stop": (".", "\n"),
    "temperature": 0.8,
    "context_length": 512,
    "eval_episodes": 0,  # `held_out` plays them, and keeps each
    "sample_every": 0,
}
RUNS: dict[str, dict[str, Any]] = {
    "weights": {"learning_rate": 1e-5},
    "lora": {"lora_rank": 16, "learning_rate": 2e-4},
}


@dataclass(frozen=True)
class Played:
    """What held-out episodes came to.

    Attributes:
        successes: Whether the right place was named, by episode.
        one_place: Share of replies that name one place.
        begun: Mean probability of the right place in a reply that begins with "<person> is in the".
        conversations: Some of them: what the user asked, and the reply.
    """

    successes: list[bool]
    one_place: float
    begun: float
    conversations: list[tuple[str, str]]

    @property
    def success(self) -> float:
        """Share of successes."""
        return sum(self.successes) / len(self.successes)


@dataclass(frozen=True)
class Run:
    """One training run, with the held-out episodes before and after.

    Attributes:
        name: Of `RUNS`.
        before: Held-out episodes before training.
        after: The same tasks afterwards.
        curve: Success of the training episodes, by step.
        seconds: Of the whole process, from the first import of torch to the last episode.
        training_seconds: Of the training steps alone.
        peak_gib: The highest resident memory.
    """

    name: str
    before: Played
    after: Played
    curve: list[float]
    seconds: float
    training_seconds: float
    peak_gib: float

    @classmethod
    def from_json(cls, text: str) -> "Run":
        """Read what `asdict` made."""
        fields = json.loads(text)
        return cls(**{**fields, "before": Played(**fields["before"]), "after": Played(**fields["after"])})

    @property
    def paired(self) -> PairedDifference:
        """What became of the held-out tasks."""
        return PairedDifference.of(self.before.successes, self.after.successes)

    @property
    def passes(self) -> bool:
        """Whether it came to what is promised."""
        rises = self.paired.difference >= RISE and self.paired.interval()[0] > 0 and self.paired.p_value < P_VALUE
        return rises and self.seconds <= MINUTES * 60


def train(name: str, options: Mapping[str, Any], episodes: int) -> Run:
    """Play held-out episodes, train, play them again."""
    begun = time.perf_counter()
    from llmgym.agents import GRPO

    agent = GRPO(**options)
    before = held_out(agent, episodes)
    metrics = agent.train().metrics
    after = held_out(agent, episodes)
    return Run(
        name,
        before,
        after,
        [step["success"] for step in metrics],
        time.perf_counter() - begun,
        sum(step["seconds"] for step in metrics),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    )


def held_out(agent: Any, episodes: int) -> Played:
    """Play the first held-out tasks, each with its own random numbers, the same at every call."""
    from llmgym.rollout.collector import Collector
    from llmgym.rollout.task import Task

    actor = agent.trainer.student
    collector = Collector(actor.make_envs(episodes, split="eval"), actor.codec, actor.rollouts.engine)
    played = collector.collect([Task(seed, seed) for seed in range(episodes)], actor.config.sampling)
    return Played(
        [trajectory.parts["success"] == 1 for trajectory in played],
        sum(trajectory.parts["one_place"] > 0 for trajectory in played) / episodes,
        statistics.mean(probability_when_begun(agent, seed) for seed in range(min(BEGUN, episodes))),
        [(trajectory.messages[-2].content, trajectory.messages[-1].content) for trajectory in played[:SHOWN]],
    )


def probability_when_begun(agent: Any, seed: int) -> float:
    """Return how likely the right place is in a held-out task if the reply begins with "<person> is in the"."""
    import torch

    from llmgym.types import Message

    env = WhereIs(split="eval")
    observation, _ = env.reset(seed=seed)
    actor = agent.trainer.student
    messages = [Message("system", env.system_prompt or ""), Message("user", observation)]
    beginning = f"{env.person} is in the"
    begun, whole = (
        actor.tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in (beginning, f"{beginning} {env.episode.task}")
    )
    with torch.no_grad():
        logits = actor.model(torch.tensor([[*actor.codec.prompt(messages), *begun]])).logits[0, -1]
    return float((logits / actor.config.sampling.temperature).softmax(-1)[whole[len(begun)]])


def table(runs: Sequence[Run]) -> str:
    """Return the runs as Markdown."""
    lines = [
        "| | success before | after | difference, 95 % | McNemar's p | gained, lost | time | in training | memory | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        paired = run.paired
        low, high = paired.interval()
        cells = (
            run.name,
            f"{run.before.success:.3f}",
            f"{run.after.success:.3f}",
            f"{paired.difference:+.3f} [{low:+.3f}, {high:+.3f}]",
            f"{paired.p_value:.1g}",
            f"{paired.gained}, {paired.lost} of {paired.tasks}",
            f"{run.seconds / 60:.1f} min",
            f"{run.training_seconds / 60:.1f} min",
            f"{run.peak_gib:.1f} GiB",
            "PASS" if run.passes else "FAIL",
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| replies | name one place | of these, the right one | right if it begins right |",
        "|---|---|---|---|",
    ]
    for run in runs:
        for when, played in (("before", run.before), ("after", run.after)):
            right = played.success / played.one_place if played.one_place else math.nan
            lines.append(f"| {run.name}, {when} | {played.one_place:.3f} | {right:.3f} | {played.begun:.3f} |")
    return "\n".join(lines)


def conversations(runs: Sequence[Run]) -> str:
    """Return the first held-out tasks, and what was replied before and after, as Markdown."""
    names = [f"after, {run.name}" for run in runs]
    lines = [f"| {' | '.join(['task', 'before', *names])} |", "|---" * (2 + len(runs)) + "|"]
    for i, (task, reply) in enumerate(runs[0].before.conversations):
        replies = [reply, *(run.after.conversations[i][1] for run in runs)]
        lines.append(f"| {' | '.join([task, *(text.strip() for text in replies)])} |")
    return "\n".join(lines)


def draw(path: Path, runs: Sequence[Run]) -> None:
    """Draw success over the steps, one panel per run, and the held-out success before and after."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from llmgym.statistics import wilson_interval

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
    for axes, run in zip(panels, runs, strict=True):
        steps = len(run.curve)
        axes.plot(range(1, steps + 1), run.curve, color="#2f6f9f", linewidth=1.5, label="training episodes")
        for x, played in ((0, run.before), (steps + 0.5, run.after)):
            low, high = wilson_interval(sum(played.successes), len(played.successes))
            error = [[played.success - low], [high - played.success]]
            label = "held out, 95 %" if x == 0 else None
            axes.errorbar(x, played.success, error, fmt="o", color="black", capsize=4, zorder=3, label=label)
        options = {**SETTINGS, **RUNS[run.name]}
        rank = f"LoRA of rank {options['lora_rank']}" if options.get("lora_rank") else "all weights"
        axes.set(title=f"{rank}, learning rate {options['learning_rate']:g}", xlabel="step", ylim=(0, 1.05))
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("success")
    panels[0].legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run what is asked for, print what came out and what it was measured on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=".real-model", help="directory of SmolLM2-135M-Instruct")
    parser.add_argument("--only", choices=RUNS, help="one of the two runs")
    parser.add_argument("--steps", type=int, help="training steps, instead of those that are promised")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the weights")
    parser.add_argument("--episodes", type=int, default=150, help="held-out episodes")
    parser.add_argument("--output", type=Path, default=Path("runs/real_model"), help="where runs and results go")
    options = parser.parse_args()
    if not Path(options.model).is_dir():
        parser.error(f"--model: expected a directory, found none at {options.model!r}; `make test-real` makes it")
    options.output.mkdir(parents=True, exist_ok=True)
    runs = []
    for name in [options.only] if options.only else RUNS:
        result = options.output / f"{name}.json"
        if not result.exists():
            settings = {**SETTINGS, **RUNS[name], "model": options.model, "dtype": options.dtype}
            settings |= {"steps": options.steps or SETTINGS["steps"], "output_dir": options.output / name}
            # A process for each run, so that its memory is its own.
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                run = pool.submit(train, name, settings, options.episodes).result()
            result.write_text(json.dumps(asdict(run)))
        runs.append(Run.from_json(result.read_text()))
    draw(options.output / "curve.png", runs)
    threads = os.environ.get("OMP_NUM_THREADS", "as many as there are cores")
    print(f"\n{processor()}, threads: {threads}, {options.dtype}\n\n{table(runs)}\n\n{conversations(runs)}")
    print("\nPASS" if all(run.passes for run in runs) else "\nFAIL")


if __name__ == "__main__":
    main()

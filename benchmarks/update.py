"""How fast a GRPO update is: llmgym's learner beside its peers.

``python -m benchmarks.update --help``; README.md in this folder says what is compared.
"""

import argparse
import contextlib
import json
import platform
import random
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from benchmarks import model
from benchmarks.processes import Process
from benchmarks.results import Claim, claim_table, processor
from benchmarks.updates.episodes import Episodes, Step
from benchmarks.work import Work
from llmgym.demo import TINY_PATH

SIDES = {
    "ours": "llmgym",
    "ours_checkpointing": "llmgym with checkpointing",
    "loop": "transformers, a plain loop",
    "trl_grpo": "TRL GRPOTrainer",
    "trl_grpo_plain": "TRL GRPOTrainer without checkpointing",
    "torchrl_grpo": "TorchRL with 8 rows at once",
    "torchrl_grpo_defaults": "TorchRL with its defaults",
}


@dataclass
class Measurement:
    """The repeats of one side at the same episodes.

    Attributes:
        side: Who took the steps.
        episodes: Over what.
        steps: What the side said of each.
        cpu_seconds: Processor time of each.
        loaded_mib: Resident memory before the first step, at its highest.
        peak_mib: The same by the end.
    """

    side: str
    episodes: str
    loaded_mib: float
    peak_mib: float = 0.0
    steps: list[Step] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(step.seconds for step in self.steps)


def episodes_of(work: Work, directory: Path) -> Episodes:
    """Make episodes with random replies, old log-probabilities near the model's own, and random advantages."""
    draw = random.Random(0)
    lm = AutoModelForCausalLM.from_pretrained(directory).eval()
    rests, masks, log_probs = [], [], []
    for prompt, lengths in zip(work.prompts, work.lengths, strict=True):
        rest: list[int] = []
        mask: list[int] = []
        for turn, length in enumerate(lengths):
            bridge = work.bridge if turn else []
            rest += bridge + [draw.randrange(3, lm.config.vocab_size) for _ in range(length)]
            mask += [0] * len(bridge) + [1] * length
        with torch.no_grad():
            logits = lm(torch.tensor([prompt + rest])).logits[0, len(prompt) - 1 : -1]
        exact = logits.log_softmax(-1).gather(1, torch.tensor(rest)[:, None])[:, 0].tolist()
        rests.append(rest)
        masks.append(mask)
        # As if an earlier update had moved the policy since: some ratios are clipped.
        log_probs.append([m * (value + draw.gauss(0, 0.1)) for value, m in zip(exact, mask, strict=True)])
    return Episodes(work.name, work.prompts, rests, masks, log_probs, [draw.gauss(0, 1) for _ in rests])


def measure(
    names: list[str], works: list[Episodes], dtype: str, warm_up: int, repeats: int, directory: Path
) -> tuple[list[Measurement], dict[str, str]]:
    """Let every side take steps over all episodes, interleaved; the first `warm_up` of each do not count."""
    found: dict[tuple[str, str], Measurement] = {}
    versions: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        sides = [
            stack.enter_context(
                Process("benchmarks.updates.worker", name, directory / "model", dtype, directory / f"{name}.log")
            )
            for name in names
        ]
        for repeat in range(1 - warm_up, repeats + 1):
            for episodes in works:
                for side in sides:
                    versions |= side.versions
                    answer, cpu_seconds = side.ask(episodes.to_json())
                    step = Step(**json.loads(answer))
                    print(f"{repeat}/{repeats} {episodes.name}: {side.name} {step}", file=sys.stderr)
                    if repeat > 0:
                        fresh = Measurement(side.name, episodes.name, side.loaded_mib)
                        cell = found.setdefault((episodes.name, side.name), fresh)
                        cell.steps.append(step)
                        cell.cpu_seconds.append(cpu_seconds)
                        cell.peak_mib = side.peak_mib
    return list(found.values()), versions


def table(measurements: list[Measurement]) -> str:
    """Return the medians as Markdown, each beside llmgym's."""
    ours = {cell.episodes: cell for cell in measurements if cell.side == "ours"}
    lines = [
        "| episodes | side | median s | llmgym's by it | s of each repeat | CPU s | loss | gradient | peak MiB "
        "| above loaded |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in measurements:
        base = ours.get(cell.episodes)
        cells = (
            cell.episodes,
            SIDES[cell.side],
            f"{cell.seconds:.2f}",
            f"{base.seconds / cell.seconds:.2f}" if base else "",
            " ".join(f"{step.seconds:.2f}" for step in cell.steps),
            f"{statistics.median(cell.cpu_seconds):.2f}",
            f"{cell.steps[0].loss:.7f}",
            f"{cell.steps[0].grad_norm:.5f}",
            f"{cell.peak_mib:.0f}",
            f"{cell.peak_mib - cell.loaded_mib:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def claims(measurements: list[Measurement], loss_tolerance: float = 1e-5) -> list[Claim]:
    """Return what the measurements say of the project's promises."""
    found = {(cell.episodes, cell.side): cell for cell in measurements}
    bounds = {"trl_grpo": 0.6, "trl_grpo_plain": 0.6, "torchrl_grpo_defaults": 0.15}
    answers = []
    for (episodes, side), theirs in found.items():
        ours = found.get((episodes, "ours"))
        if ours is None or side == "ours":
            continue
        if side in bounds:
            text = f"llmgym's time by that of {SIDES[side]}, {episodes}"
            answers.append(Claim(text, bounds[side], ours.seconds / theirs.seconds, False))
        if side.startswith("trl"):
            text = f"llmgym's peak memory by that of {SIDES[side]}, {episodes}"
            answers.append(Claim(text, 1.0, ours.peak_mib / theirs.peak_mib, False))
        difference = abs(ours.steps[0].loss - theirs.steps[0].loss)
        text = f"loss minus that of {SIDES[side]} in {loss_tolerance:g}, {episodes}"
        answers.append(Claim(text, 1.0, difference / loss_tolerance, False))
    return answers


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a model's directory; a random one unless given")
    parser.add_argument("--only", default=",".join(SIDES), help="sides, separated by commas")
    parser.add_argument("--episodes", default="even,ragged", help="episodes, separated by commas")
    parser.add_argument("--prompts", type=int, default=16, help="distinct incidents, eight episodes each")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the matrix products")
    parser.add_argument(
        "--warm-up", type=int, default=1, help="steps of each side that do not count; 0 for large models"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    arguments = parser.parse_args()
    lengths = {"even": (48, 48), "ragged": (8, 96)}
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        parameters, kind = model.prepare(arguments.model, directory / "model")
        tokenizer = arguments.model or TINY_PATH
        works = [
            episodes_of(model.triage(name, lengths[name], arguments.prompts, tokenizer=tokenizer), directory / "model")
            for name in arguments.episodes.split(",")
        ]
        names = [name for name in SIDES if name in arguments.only.split(",")]
        found, versions = measure(names, works, arguments.dtype, arguments.warm_up, arguments.repeats, directory)
    answers = claims(found, 1e-5 if arguments.dtype == "float32" else 1e-3)
    print(
        f"{processor()}, one thread a side; Python {platform.python_version()}, "
        + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        + f"; {kind} of {parameters:,} parameters, products in {arguments.dtype}; "
        f"medians of {arguments.repeats} interleaved repeats.\n"
    )
    print(table(found), claim_table(answers), sep="\n\n")
    if arguments.json:
        cells = [asdict(cell) | {"median_seconds": cell.seconds} for cell in found]
        figures = {"processor": processor(), "versions": versions, "dtype": arguments.dtype, "measurements": cells}
        figures["model"] = f"{kind} of {parameters:,} parameters"
        figures["sampled"] = {episodes.name: episodes.sampled for episodes in works}
        figures["claims"] = [asdict(claim) | {"kept": claim.kept} for claim in answers]
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()

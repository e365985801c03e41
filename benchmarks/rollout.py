"""How fast episodes are sampled: llmgym's embedded engine beside its peers.

``python -m benchmarks.rollout --help``; README.md in this folder says what is compared.
"""

import argparse
import contextlib
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks import model
from benchmarks.processes import Side
from benchmarks.results import Claim, Measurement, by_token, claim_table, measurement_table, processor
from benchmarks.work import Work
from llmgym.demo import TINY_PATH

SIDES = {
    "ours": "llmgym",
    "generate": "transformers `generate`",
    "trl_grpo": "TRL GRPOTrainer",
    "sglang_cpu": "SGLang on CPU",
    "sglang_llmgym": "the same through llmgym",
    "generate_batch": "transformers continuous batching",
    "collector": "llmgym, with environments",
    "products": "the matrix products alone",
}

PEERS = ("generate", "trl_grpo", "sglang_cpu")
SECTIONS = ("float32", "bfloat16", "short", "episodes", "turns", "through", "collector")

Measurements = dict[tuple[str, str, str], Measurement]  # by work, type and side


def sections(prompts: int, tokenizer: Path) -> dict[str, tuple[str, list[str], list[Work]]]:
    """Return the parts of the benchmark: a type, the sides and their works, by name.

    Args:
        prompts: Distinct incidents of the first two parts.
        tokenizer: The directory of what makes their tokens; the other parts have the bundled one.
    """
    even, ragged = (
        model.triage(name, lengths, prompts, tokenizer=tokenizer)
        for name, lengths in (("even", (48, 48)), ("ragged", (8, 96)))
    )
    return {
        "float32": ("float32", ["ours", *PEERS, "generate_batch", "products"], [even, ragged]),
        "bfloat16": ("bfloat16", ["ours", "generate", "trl_grpo", "sglang_cpu", "products"], [even, ragged]),
        "short": ("float32", ["ours", "generate", "trl_grpo", "sglang_cpu"], [model.cut(even), model.cut(ragged)]),
        "episodes": (
            "float32",
            ["ours"],
            [model.triage(f"even, {8 * n} episodes", (48, 48), prompts=n) for n in (16, 64)],
        ),
        "turns": ("float32", ["ours"], [model.many_turns(4), model.many_turns(32)]),
        "through": ("float32", ["sglang_cpu", "sglang_llmgym"], [replace(ragged, name="ragged, SGLang")]),
        "collector": ("float32", ["ours", "collector"], [replace(even, name="even, collected")]),
    }


def measure(
    dtype: str, names: Sequence[str], works: Sequence[Work], warm_up: int, repeats: int, directory: Path
) -> tuple[Measurements, dict[str, str]]:
    """Run every side at every work, interleaved: one repeat of all of them after the other.

    Args:
        dtype: The type of the weights.
        names: The sides, each in a fresh process.
        works: What they do.
        warm_up: How often each side does the first work before, uncounted.
        repeats: How often.
        directory: Holds the model, and takes what the sides' libraries print.

    Returns:
        The measurements, and the versions of the libraries.
    """
    measurements: Measurements = {}
    versions: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        sides = []
        for name in names:
            side = stack.enter_context(Side(name, directory / "model", dtype, directory / f"{name}.log"))
            versions |= side.versions
            for _ in range(warm_up):
                side.run(works[0])
            sides.append(side)
        for repeat in range(repeats):
            for work in works:
                for side in sides:
                    empty = Measurement(side.name, dtype, work.name, work.sampled, side.loaded_mib)
                    outcome = side.run(work)
                    measurements.setdefault((work.name, dtype, side.name), empty).outcomes.append(outcome)
                    progress = f"{repeat + 1}/{repeats} {work.name}: {side.name} {dtype} {outcome.seconds:.2f} s"
                    print(progress, file=sys.stderr)
    return measurements, versions


def _bounded(ours: Measurement, fastest: Measurement, products: Measurement) -> Claim:
    """Return the claim that llmgym takes half of the fastest peer's time, or 1.5 times that of the products alone."""
    text = f"llmgym's time by half of {SIDES[fastest.side]}'s or 1.5 of the products', {ours.dtype}, {ours.work}"
    wall = ours.seconds / max(fastest.seconds / 2, products.seconds * 1.5)
    cpu = ours.cpu_seconds / max(fastest.cpu_seconds / 2, products.cpu_seconds * 1.5)
    return Claim(text, 1.0, wall, at_least=False, by_cpu=cpu)


def claims(found: Measurements) -> list[Claim]:
    """Return what the measurements say of the project's promises."""
    answers = []
    promises = [("even", "generate", 2.0), ("even", "trl_grpo", 2.0)]
    promises += [("ragged", "generate", 3.0), ("ragged", "trl_grpo", 3.0), ("ragged", "sglang_cpu", 2.3)]
    for suffix in ("", model.CUT):
        for work, peer, factor in promises:
            ours, theirs = (found.get((work + suffix, "float32", side)) for side in ("ours", peer))
            if ours and theirs:
                text = f"{SIDES[peer]}'s time by llmgym's, {work}{suffix}"
                answers.append(by_token(text, factor, theirs, ours, at_least=True))
    for work in ("even", "ragged"):
        for dtype in ("float32", "bfloat16"):
            ours, products = (found.get((work, dtype, side)) for side in ("ours", "products"))
            if ours and products:
                text = f"llmgym's time by that of the matrix products alone, {dtype}, {work}"
                answers.append(by_token(text, 1.5, ours, products, at_least=False))
                peers = [found[key] for side in PEERS if (key := (work, dtype, side)) in found]
                if len(peers) == len(PEERS):  # or nobody knows which is the fastest
                    answers.append(_bounded(ours, min(peers, key=lambda peer: peer.seconds), products))
    for work, factor in (("even", 3.0), ("ragged", 4.5)):
        ours = found.get((work, "bfloat16", "ours"))
        for dtype in ("bfloat16", "float32"):
            theirs = found.get((work, dtype, "generate"))
            if ours and theirs:
                text = f"`generate`'s time in {dtype} by llmgym's in bfloat16, {work}"
                answers.append(by_token(text, factor, theirs, ours, at_least=True))
    scaling = [
        ("even, 512 episodes", "even, 128 episodes", "512 episodes by 128", 1.0),
        ("32 turns", "4 turns", "32 turns by 4", 1.2),
    ]
    for large, small, text, factor in scaling:
        more, less = (found.get((work, "float32", "ours")) for work in (large, small))
        if more and less:
            text = f"llmgym's time per token, {text}"
            answers.append(by_token(text, factor, more, less, at_least=False))
    ours, theirs = (found.get(("ragged, SGLang", "float32", side)) for side in ("sglang_llmgym", "sglang_cpu"))
    if ours and theirs:
        answers.append(by_token("SGLang's time by its time through llmgym", 0.95, theirs, ours, at_least=True))
    ours, theirs = (found.get(("ragged", "float32", side)) for side in ("ours", "trl_grpo"))
    if ours and theirs:
        text = "llmgym's peak memory by TRL GRPOTrainer's, sampling alone"
        answers.append(Claim(text, 1.0, ours.peak_mib / theirs.peak_mib, at_least=False))
    return answers


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a model's directory, for sections float32 and bfloat16; or random")
    parser.add_argument("--prompts", type=int, default=16, help="distinct incidents there")
    parser.add_argument("--works", help="those to do, separated by commas; all of them unless given")
    parser.add_argument("--only", default=",".join(SIDES), help="sides, separated by commas")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="parts of the benchmark, separated by commas")
    parser.add_argument(
        "--warm-up", type=int, default=1, help="works of each side that do not count; 0 for large models"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    arguments = parser.parse_args()
    only = arguments.only.split(",")
    found: Measurements = {}
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        parameters, kind = model.prepare(arguments.model, directory / "model")
        parts = sections(arguments.prompts, arguments.model or TINY_PATH)
        for section in arguments.sections.split(","):
            dtype, names, works = parts[section]
            works = [work for work in works if not arguments.works or work.name in arguments.works.split(",")]
            measured, loaded = measure(
                dtype, [n for n in names if n in only], works, arguments.warm_up, arguments.repeats, directory
            )
            found |= measured  # no two sections measure the same
            versions |= loaded
    answers = claims(found)
    print(
        f"{processor()}, one thread a side; Python {platform.python_version()}, "
        + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        + f"; {kind} of {parameters:,} parameters; medians of {arguments.repeats} interleaved repeats.\n"
    )
    print(measurement_table(list(found.values()), SIDES), claim_table(answers), sep="\n\n")
    if arguments.json:
        cells = [asdict(cell) | {"median_seconds": cell.seconds} for cell in found.values()]
        figures = {"processor": processor(), "versions": versions, "measurements": cells}
        figures["model"] = f"{kind} of {parameters:,} parameters"
        figures["claims"] = [asdict(claim) | {"kept": claim.kept} for claim in answers]
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()

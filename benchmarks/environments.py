"""A model of yours in every built-in environment, untrained: one table.

    python -m benchmarks.environments --model DIRECTORY --name "SmolLM2-135M-Instruct"
    python -m benchmarks.environments --model DIRECTORY --name NAME --only Sums Orders --episodes 50

It writes docs/environments/baselines.md. What is measured is kept in ``results.jsonl`` of ``--output`` and not measured
again, so a table that was interrupted goes on.
"""

import argparse
import json
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import llmgym
from benchmarks.results import processor
from llmgym.agents import GRPO

PAGE = Path(__file__).parent.parent / "docs" / "environments" / "baselines.md"
NEEDS_DATA = {"llmgym/qa-v0"}


def names(only: Sequence[str]) -> Iterator[str]:
    """Yield the names of the built-in environments that are asked for."""
    for env_id in llmgym.registered_envs():
        name = env_id.removeprefix("llmgym/").removesuffix("-v0")
        if env_id.startswith("llmgym/") and env_id not in NEEDS_DATA and (not only or name in only):
            yield name


def measure(name: str, model: str, difficulty: int, episodes: int, max_tokens: int) -> dict[str, Any]:
    """Play held-out episodes at temperature 1 and return what came of them."""
    begun = time.monotonic()
    agent = GRPO(
        env=name,
        env_kwargs={"difficulty": difficulty},
        model=model,
        eval_episodes=episodes,
        max_tokens=max_tokens,
    )
    found = agent.evaluate()
    return {
        "name": name,
        "difficulty": difficulty,
        "episodes": episodes,
        "max_tokens": max_tokens,
        "reward": found.reward,
        "success": found.success,
        "seconds": time.monotonic() - begun,
    }


def table(rows: Sequence[dict[str, Any]], name: str) -> str:
    """Return the page."""
    first = rows[0]
    measured = {row["name"] for row in rows}
    missing = [one for one in names([]) if one not in measured]
    about = (
        f"{name} as it comes, at temperature 1, replies of at most {first['max_tokens']} tokens, {first['episodes']} "
        f"held-out episodes at difficulty {first['difficulty']}, on one thread of: {processor()}. So few episodes tell "
        "a model that knows a task from one that does not, and no more. Each environment's own page has the rewards of "
        "its expert, of chance and of replies that take no thought."
        + (f" Not measured: {', '.join(missing)}." if missing else "")
    )
    lines = [
        "# Baselines of a model",
        "",
        textwrap.fill(about, 120),
        "",
        "| environment | mean reward | success | seconds |",
        "|---|---|---|---|",
        *(f"| {row['name']} | {row['reward']:.2f} | {row['success']:.0%} | {row['seconds']:.0f} |" for row in rows),
        "",
        f"<!-- python -m benchmarks.environments --model DIRECTORY --name '{name}' --episodes {first['episodes']} "
        f"--max-tokens {first['max_tokens']} --difficulty {first['difficulty']} wrote this page. -->",
        "",
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure what is not measured yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="directory or hub name of a model with a chat template")
    parser.add_argument("--name", required=True, help="what the page calls it")
    parser.add_argument("--only", nargs="*", default=[], help="names of environments")
    parser.add_argument("--difficulty", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--output", type=Path, default=Path("runs/environments"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    kept = options.output / "results.jsonl"
    found = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    measured = {row["name"]: row for row in found}
    for name in names(options.only):
        if name not in measured:
            measured[name] = measure(name, options.model, options.difficulty, options.episodes, options.max_tokens)
            print(measured[name], flush=True)
            with kept.open("a") as file:
                file.write(json.dumps(measured[name]) + "\n")
    PAGE.write_text(table([measured[name] for name in names(options.only)], options.name), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

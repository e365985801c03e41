"""What ``llmgym doctor RUN`` promises of moving an option, and what moving it gives: ``python -m benchmarks.doctor``.

Five bottlenecks are planted in runs of the default task, one in each. The doctor looks at each run; the option that it
names for that is moved, and the run is measured again.
"""

import contextlib
import io
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import llmgym
from llmgym.agents import GRPO
from llmgym.doctor import diagnose
from llmgym.envs.aiops.triage import AIOpsTriage

NAP = 0.04  # seconds, per reply or episode
STEPS = 9
SMALL: Mapping[str, Any] = {
    "prompts_per_step": 4,
    "group_size": 4,
    "max_tokens": 48,
    "sample_every": 0,
    "eval_episodes": 0,
    "env": "AIOpsTriage",
}


class Slow(AIOpsTriage):
    """Triage that takes a while to answer."""

    def respond(self, action: str) -> str | None:
        """Sleep, and answer."""
        time.sleep(NAP)
        return super().respond(action)


class Waiting(Slow):
    """The same, and says so."""

    blocking = True


class Short(llmgym.TextEnv):
    """Has next to nothing to read, so that saving takes longer than learning."""

    def begin(self) -> str:
        """Ask."""
        return "Go."

    def respond(self, action: str) -> None:
        """End after one reply."""

    def score(self, episode: llmgym.Episode) -> float:
        """Pay for a reply of more than one character."""
        return float(len(episode.actions[-1]) > 1)


def slow(episode: llmgym.Episode) -> float:
    """Sleep, and pay for JSON."""
    time.sleep(2 * NAP)
    return float(episode.actions[-1].startswith("{"))


PLANTED: Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, Any]]] = {
    "evaluation": ("--eval-every", {"eval_every": 1, "eval_episodes": 32}, {"eval_every": 4}),
    "saving": (
        "--save-every",
        {"env": "Short-v0", "save_every": 1, "prompts_per_step": 1, "group_size": 2, "max_tokens": 2},
        {"save_every": 4},
    ),
    "learning": ("--epochs", {"epochs": 6}, {"epochs": 1}),
    "scoring": (
        "--scorer-workers",
        {"scorer": "benchmarks.doctor:slow"},
        {"scorer_workers": max(2, os.cpu_count() or 1)},
    ),
    "environment": ("blocking = True", {"env": "SlowTriage-v0"}, {"env": "WaitingTriage-v0"}),
}
"""By bottleneck: what moves it, the options that plant it, and those that the doctor moves."""


def measure(options: Mapping[str, Any]) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Return the metrics of a run, and its options."""
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(io.StringIO()):
        agent = GRPO(**{**SMALL, **options}, steps=STEPS, output_dir=Path(directory))
        with contextlib.closing(agent):
            result = agent.train()
        return list(result.metrics), agent.config.flat()


def main() -> None:
    """Print what was promised and what came, for each bottleneck."""
    llmgym.register_env("SlowTriage-v0")(Slow)
    llmgym.register_env("WaitingTriage-v0")(Waiting)
    llmgym.register_env("Short-v0")(Short)
    measure({})  # the first run is slower
    cores = os.cpu_count() or 1
    print(f"{'planted':>12}  {'found':>12}  {'s/step':>7}  {'promised':>8}  {'measured':>8}  promised / measured")
    for planted, (option, before, after) in PLANTED.items():
        found = diagnose(*measure(before), cores)
        advice = next(one for one in found.advice if one.option.startswith(option))
        promised, measured = advice.seconds or 0.0, diagnose(*measure({**before, **after}), cores).seconds
        print(
            f"{planted:>12}  {found.bound:>12}  {found.seconds:7.3f}  {promised:8.3f}  {measured:8.3f}  "
            f"{promised / measured:.2f}  ({advice.option})"
        )


if __name__ == "__main__":
    main()

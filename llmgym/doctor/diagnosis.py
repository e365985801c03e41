"""`Diagnosis`: where the time of a run goes, what bounds it, and what moving an option should give."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmgym.errors import DataError

PHASES = {
    "generation": "the engine samples",
    "environment": "environments hold everything up, their own scores included",
    "scoring": "a scorer holds everything up",
    "waiting": "everything waits for slow environments or scorers",
    "episodes": "the rest of playing: conversations, tokens, and episodes that other processes play",
    "learning": "gradients and optimiser steps",
    "hand_over": "engines get the new weights",
    "evaluation": "held-out episodes are played",
    "saving": "checkpoints are written",
    "rest": "all else, such as writing episodes down",
}
"""What the time of a step can go to."""

_OPTIONS = (
    *("eval_every", "save_every", "epochs", "scorer_workers", "isolate_env", "prompts_per_step", "group_size"),
    *("rollout_workers", "max_staleness"),
)
_A_YEAR = 366 * 86_400.0  # in seconds
_WARM_UP = 1  # first steps that are left out, where there are enough
_FEW = 3  # steps


@dataclass(frozen=True)
class Advice:
    """What could be moved.

    Attributes:
        option: What to change, as the command line has it.
        seconds: What a step should take then, over the run; None if that cannot be told from here.
        why: In a sentence.
    """

    option: str
    seconds: float | None
    why: str


@dataclass(frozen=True)
class Diagnosis:
    """Where the time of a run goes.

    Attributes:
        steps: How many are looked at.
        seconds: What a step takes, evaluations and checkpoints included.
        phases: Seconds per step, by what they went to; see `PHASES`.
        bound: The phase that takes most.
        advice: What could be moved, what gives most first.
    """

    steps: int
    seconds: float
    phases: Mapping[str, float]
    bound: str
    advice: Sequence[Advice]


def diagnose(rows: Sequence[Mapping[str, float]], options: Mapping[str, Any], cores: int) -> Diagnosis:
    """Find out what bounds a run.

    A step's time is the mean over steps, since what happens now and then, such as an evaluation, counts too.

    Args:
        rows: The lines of ``metrics.jsonl``.
        options: Of the run.
        cores: Of the machine that it runs on.

    Raises:
        DataError: There is no step, its times are no times, or an option of those that are looked at is no number.
    """
    for name in _OPTIONS:
        if not isinstance(options.get(name, 0), int | None):
            raise DataError(f"{name}: expected a number among the options of the run, got {options[name]!r:.80}.")
    if not rows:
        raise DataError("expected at least one step, got none.")
    for row in rows:
        for name, value in row.items():
            if name.endswith("seconds") and not 0 <= value < _A_YEAR:
                raise DataError(f"Step {row.get('step')}: expected {name} as a time, got {value!r:.80}.")
    if not any(row.get("seconds") for row in rows):
        raise DataError("expected the seconds that steps took, got none.")
    seen = rows[_WARM_UP:] if len(rows) >= _WARM_UP + _FEW else rows

    def mean(name: str) -> float:
        return statistics.fmean(row.get(name, 0.0) for row in seen)

    played = {name: mean(f"{name}_seconds") for name in ("generation", "environment", "scoring", "waiting")}
    phases = {
        **played,
        "episodes": max(0.0, mean("rollout_seconds") - sum(played.values())),
        **{name: mean(f"{name}_seconds") for name in ("learning", "hand_over")},
        **{name: _now_and_then(rows, f"{name}_seconds") for name in ("evaluation", "saving")},
    }
    inside = mean("seconds")
    phases["rest"] = max(0.0, inside - sum(phases[name] for name in phases if name not in ("evaluation", "saving")))
    seconds = inside + phases["evaluation"] + phases["saving"]
    parts = {name: mean(f"{name}_seconds") for name in ("environment_working", "updating")}
    advice = sorted(
        _advice(phases, parts, seconds, options, cores),
        key=lambda one: one.seconds or seconds,
    )
    return Diagnosis(len(seen), seconds, phases, max(phases, key=phases.__getitem__), advice)


def _now_and_then(rows: Sequence[Mapping[str, float]], name: str) -> float:
    """Return the seconds per step of what is not done in every step; its first line is that of the start."""
    later = rows[1:]
    return statistics.fmean(row.get(name, 0.0) for row in later) if later else 0.0


def _advice(
    phases: Mapping[str, float],
    parts: Mapping[str, float],
    seconds: float,
    options: Mapping[str, Any],
    cores: int,
) -> Iterator[Advice]:
    """Yield what could be moved, if it takes a tenth of a step at least; `parts` are of the phases."""
    large = {name for name, value in phases.items() if value > 0.1 * seconds}
    workers, ahead = options.get("rollout_workers", 0), options.get("max_staleness", 0)
    rollout = sum(phases[name] for name in ("generation", "environment", "scoring", "waiting", "episodes"))
    learning = phases["learning"] + phases["hand_over"]
    if "evaluation" in large and options.get("eval_every"):
        every = 4 * options["eval_every"]
        yield Advice(f"--eval-every {every}", seconds - 0.75 * phases["evaluation"], "a quarter of the evaluations")
    if "saving" in large and options.get("save_every"):
        every = 4 * options["save_every"]
        yield Advice(f"--save-every {every}", seconds - 0.75 * phases["saving"], "a quarter of the checkpoints")
    if "learning" in large and (epochs := options.get("epochs", 1)) > 1:
        fewer = seconds - (1 - 1 / epochs) * parts["updating"]
        yield Advice("--epochs 1", fewer, "each token is learnt from once")
    if "scoring" in large and not options.get("scorer_workers", 0):
        count = max(2, cores)
        fewer = seconds - (1 - 1 / count) * phases["scoring"]
        yield Advice(f"--scorer-workers {count}", fewer, f"{count} processes score side by side")
    if "environment" in large and not options.get("isolate_env", False):
        working = parts["environment_working"]
        asleep = phases["environment"] - working
        left = working / cores + asleep / max(1, options.get("prompts_per_step", 1) * options.get("group_size", 1))
        sleeps = asleep > working
        yield Advice(
            "blocking = True in the environment, or --isolate-env" if sleeps else "--isolate-env",
            seconds - phases["environment"] + left,
            "it mostly waits for something, and could do so beside the others"
            if sleeps
            else "in processes of their own",
        )
    if {"generation", "environment", "waiting", "episodes"} & large and not ahead and "group_size" in options:
        yield Advice(
            f"--rollout-workers {max(1, workers)} --max-staleness 1",
            seconds - min(rollout, learning),
            "episodes are played while the step before learns, in processes that have their own cores",
        )
    if "episodes" in large and workers and phases["generation"] == 0:
        yield Advice(
            f"--rollout-workers {2 * workers}", None, "more workers, on more cores or GPUs, play a step sooner"
        )
    if "learning" in large and cores > 1:
        yield Advice("torchrun --nproc-per-node N", None, "several processes, with cores or GPUs of their own, learn")
    if "waiting" in large:
        yield Advice("--prompts-per-step, larger", None, "more episodes wait side by side for the same time")

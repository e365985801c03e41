"""One GRPO step, traced from `main` to the optimiser: what a reader of it has to open.

    python -m tools.trace_step

Prints the files of llmgym that are entered, in the order in which they are, with the functions called in
each: first while everything is put together, then in the step itself; and the pairs of files that call
each other both ways in the step.
"""

import argparse
import contextlib
import itertools
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import FrameType
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import llmgym
from llmgym.agents.grpo import main as grpo
from llmgym.train.online import OnlineSteps

PACKAGE = Path(llmgym.__file__).parent
COMMAND = ["--env", "AIOpsTriage", "--steps", "1", "--prompts-per-step", "2", "--group-size", "2"]
COMMAND += ["--max-tokens", "16", "--eval-episodes", "0"]


class Part:
    """What was called in a part of a run.

    Attributes:
        functions: The functions called in each file, files in the order in which they were entered.
        calls: Pairs of files, the first of which calls the second.
    """

    def __init__(self) -> None:
        self.functions: dict[str, set[str]] = defaultdict(set)
        self.calls: set[tuple[str, str]] = set()

    @property
    def mutual(self) -> list[tuple[str, str]]:
        """Pairs of files that call each other both ways."""
        return [pair for pair in itertools.combinations(self.functions, 2) if {pair, pair[::-1]} <= self.calls]

    def __str__(self) -> str:
        """Return a line per file, and how many there are."""
        lines = [f"{name}: {', '.join(sorted(functions))}" for name, functions in self.functions.items()]
        return "\n".join([*lines, f"{len(lines)} files, {sum(map(len, self.functions.values()))} functions"])


class Trace:
    """A run up to its first optimiser step.

    Attributes:
        before: Up to the first step: configuration, model, engine, environments, learner.
        step: From there to the optimiser.
    """

    def __init__(self) -> None:
        self.before, self.step = Part(), Part()
        self._begun = False

    def note(self, frame: FrameType, event: str, argument: Any) -> None:
        """Take what `sys.setprofile` tells: a call from one file of the package into another, or within one."""
        code = frame.f_code
        if event != "call" or not code.co_flags & CO_OPTIMIZED or code.co_name.startswith("<"):
            return  # a module or a class that is read, or a comprehension
        name, caller = _file_of(frame), frame.f_back
        if name is None:
            return
        self._begun |= code is OnlineSteps.experience.__code__
        part = self.step if self._begun else self.before
        part.functions[name].add(code.co_qualname)
        if caller is not None and (other := _file_of(caller)) not in (None, name):
            part.calls.add((str(other), name))


class _ReachedError(Exception):
    """The optimiser has been reached."""


def trace() -> Trace:
    """Run the command until its first optimiser step, and return what was called."""
    found = Trace()
    with tempfile.TemporaryDirectory() as directory, _no_optimiser():
        sys.setprofile(found.note)
        try:
            with contextlib.suppress(_ReachedError):
                grpo([*COMMAND, "--output-dir", directory])
        finally:
            sys.setprofile(None)
    return found


@contextlib.contextmanager
def _no_optimiser() -> Iterator[None]:
    """Let a run end where its first optimiser step would be."""

    def reached(*arguments: Any, **options: Any) -> None:
        sys.setprofile(None)  # what closes a run is no part of a step
        raise _ReachedError

    original = torch.optim.AdamW.step
    torch.optim.AdamW.step = reached
    try:
        yield
    finally:
        torch.optim.AdamW.step = original


def _file_of(frame: FrameType) -> str | None:
    path = frame.f_code.co_filename
    return path.removeprefix(f"{PACKAGE}/") if path.startswith(f"{PACKAGE}/") else None


def main() -> None:
    """Print the trace."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    found = trace()
    print(f"\nBefore the step:\n{found.before}\n\nThe step:\n{found.step}")
    print("Both ways:", *(" and ".join(pair) for pair in found.step.mutual), sep="\n  ")


if __name__ == "__main__":
    main()

"""Runs agents in processes that are forked from one that has imported everything, because imports take seconds.

Each line of the input is a JSON object: an algorithm, the words of its command line, a file for what it prints, and
perhaps a moment at which the process sends itself signals: a function's name, which call of it, and which signals.
The answers are the number of the process, and its exit status once it has ended.
"""

import faulthandler
import functools
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import IO, Any

from llmgym.report.metrics import varies

ALGORITHMS = ("grpo", "kto", "opo", "ppo", "sft")


def without_times(metrics: Iterable[Mapping[str, float]]) -> list[dict[str, float]]:
    """Return the metrics of steps without those that differ from run to run."""
    return [{name: value for name, value in row.items() if not varies(name)} for row in metrics]


class Runs:
    """Asks a process of this module for runs."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._asked: IO[str] = self._process.stdin
        self._answers: IO[str] = self._process.stdout
        assert self._answers.readline() == "ready\n"

    def begin(self, command: str, log: str, moment: dict[str, Any] | None = None, ranks: int = 1) -> int:
        """Begin a run; return the number of its process."""
        algorithm, *words = command.split()
        asked = {"algorithm": algorithm, "words": words, "log": log, "moment": moment, "ranks": ranks}
        self._asked.write(json.dumps(asked) + "\n")
        self._asked.flush()
        return int(self._answers.readline())

    def end(self, process: int, *, kill_after: float | None = None) -> int:
        """Wait for a run to end, or kill it after some seconds; return its exit status."""
        if kill_after is not None and not select.select([self._answers], [], [], kill_after)[0]:
            os.kill(process, signal.SIGKILL)
        return int(self._answers.readline())

    def close(self) -> None:
        """End the process."""
        self._asked.close()
        self._process.wait()


def at(moment: dict[str, Any]) -> None:
    """Let the process send itself signals when a function is called for the n-th time."""
    module, _, path = moment["function"].partition(":")
    *owners, name = path.split(".")
    owner: Any = functools.reduce(getattr, owners, importlib.import_module(module))
    inner, calls = getattr(owner, name), iter(range(1, 10**9))

    def wrapped(*arguments: Any, **options: Any) -> Any:
        if next(calls) == moment["call"]:
            for number in moment["signals"]:
                os.kill(os.getpid(), number)
            if "raises" in moment:
                raise RuntimeError(moment["raises"])
        return inner(*arguments, **options)

    setattr(owner, name, wrapped)


def of_ranks(count: int) -> int | None:
    """Fork the ranks of a run, which go on from here; return their exit status in the process that forked them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(count):
        if (child := os.fork()) == 0:
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": rank}
            os.environ.update({name: str(one) for name, one in {"RANK": rank, "WORLD_SIZE": count, **where}.items()})
            return None
        children.append(child)
    return max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


def say(word: object) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main() -> None:
    faulthandler.enable()  # what ends a run from below Python says where
    commands = {name: importlib.import_module(f"llmgym.agents.{name}").main for name in ALGORITHMS}
    for module in ("llmgym.train.online", "llmgym.train.offline", "llmgym.engines.local.engine", "peft"):
        importlib.import_module(module)
    say("ready")
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            if asked["ranks"] > 1 and (status := of_ranks(asked["ranks"])) is not None:
                os._exit(status)
            out = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.close(0)
            code = 1
            try:
                if asked["moment"] is not None and asked["moment"].get("rank", 0) == int(os.environ.get("RANK", "0")):
                    at(asked["moment"])
                code = commands[asked["algorithm"]](asked["words"])
            finally:
                os._exit(code)
        say(child)
        say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()

"""The process that runs an agent's code: it calls the function as it is told, and knows no expected value.

It is run as a script, by `runner`, and imports nothing of llmgym. What it reads and writes are lines of JSON: first the
code, then the arguments of one call after another; an answer to each line. The code may write what it likes to where
the answers go: whatever is there is compared with what is expected in the other process.
"""

import __future__

import _thread
import bisect
import collections
import contextlib
import copy
import functools
import heapq
import itertools
import json
import math
import operator
import os
import re
import resource
import string
import sys
import typing
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

MODULES = (
    __future__, bisect, collections, copy, functools, heapq, itertools, json, math, operator, re, string, typing
)  # fmt: skip
"""What the code can import; they are here already, and nothing else can be loaded."""

CPU_SECONDS = 1
MEMORY = 512 * 2**20

# Whatever else is reported to an audit hook is refused: files, processes, threads, sockets, signals, imports.
ALLOWED = frozenset(
    """
    compile exec builtins.id code.__new__ function.__new__ object.__getattr__ object.__setattr__ object.__delattr__
    sys._getframe sys.unraisablehook
    """.split()  # noqa: SIM905  # a list of names reads better without quotes
)


def main() -> NoReturn:
    """Read the code, give up all that it does not need, and call its function until nothing more is asked for."""
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    _answer(answers, {"ready": True})
    code = json.loads(asked.readline())
    _give_up()
    names: dict[str, Any] = {"__name__": "solution"}
    _answer(answers, _tried(lambda: exec(compile(code, "solution", "exec"), names)))  # noqa: S102  # what it is here for
    while line := asked.readline():
        function, arguments = names.get("solve"), json.loads(line)
        _answer(answers, _tried(functools.partial(_called, function, arguments)))
    os._exit(0)


def _called(function: Any, arguments: list[Any]) -> Any:
    return function(*arguments)


def _tried(call: Callable[[], Any]) -> dict[str, Any]:
    """Return what a call gives, as JSON, or the name of what it raises."""
    try:
        return {"value": json.loads(json.dumps(call(), allow_nan=False))}
    except BaseException as error:  # noqa: BLE001  # SystemExit too is an answer
        return {"error": type(error).__name__}


def _answer(answers: BinaryIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


def _give_up() -> None:
    """Bound time and memory for good, and refuse files, processes, threads and sockets."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # macOS bounds no memory
            resource.setrlimit(limit, (value, value))
    del _thread.start_new_thread, _thread.start_new  # which report nothing to a hook before Python 3.12
    sys.addaudithook(_refusing())


def _refusing() -> Callable[[str, tuple[Any, ...]], None]:
    allowed = ALLOWED

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in allowed:
            raise PermissionError(event)

    return refuse


if __name__ == "__main__":
    main()

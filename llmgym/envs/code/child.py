"""The process that runs an agent's code: it calls functions as it is told, and knows no expected value.

It is run as a script, by `runner`, and imports nothing of llmgym. What it reads and writes are lines of JSON: first the
code, then one call after another: the arguments of ``solve``, or a function's name with arguments that are packed. It
answers each line. The code may write what it likes to where the answers go: whatever is there is compared with what is
expected in another process.

With the argument ``test``, the process runs a test instead, and none of the agent's code. The agent's functions are in
a process of their own, so a call of one is a line that asks for it, and the next line read has its value. The values
are plain data, so nothing of the agent's decides how they compare.
"""

import __future__

import _thread
import bisect
import builtins
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
    first = json.loads(asked.readline())
    _give_up()
    if sys.argv[1:] == ["test"]:
        _answer(answers, _tested(first["test"], first["functions"], asked, answers))
    else:
        _serve(first, asked, answers)
    os._exit(0)


def _serve(code: str, asked: BinaryIO, answers: BinaryIO) -> None:
    """Run code, answer with the names of its functions, and then every call."""
    names: dict[str, Any] = {"__name__": "solution"}

    def defined() -> list[str]:
        exec(compile(code, "solution", "exec"), names)  # noqa: S102  # what it is here for
        return [name for name, one in names.items() if callable(one)]

    _answer(answers, _tried(defined))
    while line := asked.readline():
        call = json.loads(line)
        if isinstance(call, dict):
            _answer(answers, _tried(functools.partial(_packed, names.get(call["call"]), *call["arguments"])))
        else:
            _answer(answers, _tried(functools.partial(_called, names.get("solve"), call)))


def _tested(test: str, functions: list[Any], asked: BinaryIO, answers: BinaryIO) -> dict[str, Any]:
    """Run a test, and return whether it passed, or why it cannot be run."""
    unsent: list[str] = []

    def function(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            try:
                packed = [pack(list(arguments)), pack(options)]
            except TypeError as error:
                unsent.append(f"{name} is called with {error}")
                raise
            _answer(answers, {"call": name, "arguments": packed})
            answer = json.loads(asked.readline())
            if "error" in answer:
                raise _exception(answer["error"])
            return unpack(answer["value"])

        return call

    # A built-in name is Python's own, so that nothing of the agent's takes the place of `all` or `AssertionError`.
    ours = [name for name in functions if isinstance(name, str) and name.isidentifier() and not hasattr(builtins, name)]
    names: dict[str, Any] = {"__name__": "test", **{name: function(name) for name in ours if name[:2] != "__"}}
    try:
        exec(compile(test, "test", "exec"), names)  # noqa: S102  # what it is here for
    except BaseException as error:  # noqa: BLE001  # SystemExit too is a failure
        if isinstance(error, PermissionError) and error.args == ("import",):
            unsent.append("it imports a module that cannot be loaded here")
        return {"unsent": unsent[0]} if unsent else {"value": False}
    return {"value": True}


def _exception(name: object) -> Exception:
    """Return what a call raised: an exception of Python's own by its name, any other as a `RuntimeError`."""
    known = getattr(builtins, name, None) if isinstance(name, str) else None
    return known() if isinstance(known, type) and issubclass(known, Exception) else RuntimeError()


def pack(value: Any) -> Any:
    """Return plain data as JSON, from which `unpack` makes the same.

    Raises:
        TypeError: It is something else.
    """
    if isinstance(value, int) and abs(value) >= 1 << 60:
        return {"int": hex(value)}  # a decimal one may have too many digits to be read
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, list):
        return list(map(pack, value))
    for kind in (tuple, set, frozenset):
        if isinstance(value, kind):
            return {kind.__name__: list(map(pack, value))}
    if isinstance(value, dict):
        return {"dict": [[pack(key), pack(one)] for key, one in value.items()]}
    raise TypeError(f"{type(value).__name__}, which is no plain data")


def unpack(value: Any) -> Any:
    """Return what was packed."""
    if isinstance(value, list):
        return list(map(unpack, value))
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    return _UNPACKED[kind](held)


_UNPACKED: dict[str, Callable[[Any], Any]] = {
    "int": lambda digits: int(digits, 16),
    "float": float,
    "bytes": bytes.fromhex,
    "tuple": lambda held: tuple(map(unpack, held)),
    "set": lambda held: set(map(unpack, held)),
    "frozenset": lambda held: frozenset(map(unpack, held)),
    "dict": lambda pairs: {unpack(key): unpack(one) for key, one in pairs},
}


def _called(function: Any, arguments: list[Any]) -> Any:
    return function(*arguments)


def _packed(function: Any, arguments: Any, options: Any) -> Any:
    return pack(function(*unpack(arguments), **unpack(options)))


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

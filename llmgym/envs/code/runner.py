"""Running an agent's code in a process of its own, which is killed when it has had its time."""

import builtins
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SECONDS = 10.0  # that all calls may take together; the limit of processor time is nearly always met before
PATIENCE = 60.0  # seconds to wait for the interpreter
MOST_BYTES = 100_000  # of an answer

_CHILD = Path(__file__).parent / "child.py"
_BUILT_IN = [name for name, one in vars(builtins).items() if isinstance(one, type) and issubclass(one, BaseException)]


class RunnerError(Exception):
    """The process could not be started, which is no fault of the code."""


class CodeError(Exception):
    """What the code did wrong."""


class UnfitTestError(Exception):
    """A test cannot be run with any code, which is no fault of the code."""


def outputs(code: str, calls: Sequence[Sequence[Any]]) -> list[Any]:
    """Run code, and call its function ``solve`` with one tuple of arguments after another.

    Args:
        code: Any text.
        calls: Arguments, as JSON has them.

    Returns:
        For each call its value, or the `CodeError` that it ended with. After one that ended the process, the rest end
        with the same.

    Raises:
        RunnerError: There was no process to run it in.
    """
    with _Process() as process:
        try:
            process.ask(code)
        except CodeError as error:
            return [error] * len(calls)
        found: list[Any] = []
        for arguments in calls:
            try:
                found.append(process.ask(list(arguments)))
            except _RaisedError as error:
                found.append(error)
            except CodeError as error:
                return found + [error] * (len(calls) - len(found))
        return found


def passes(code: str, test: str) -> bool:
    """Run code, and a test that calls its functions, in a process for each; tell whether the test raises nothing.

    Args:
        code: Any text.
        test: Python, which calls functions of the code by their names, with plain data.

    Raises:
        RunnerError: There was no process to run them in.
        UnfitTestError: The test calls a function with what is no plain data.
    """
    with _Process() as solution, _Process("test") as tester:
        try:
            message = tester.exchange({"test": test, "functions": solution.ask(code)})
            while "call" in message:
                message = tester.exchange(solution.exchange(message))
        except (CodeError, RecursionError):  # the latter: of values deep within one another
            return False
    if "unsent" in message:
        raise UnfitTestError(f"a test cannot be run: {message['unsent']}")
    return message.get("value") is True


class _RaisedError(CodeError):
    """The code raised an exception, and can be called again."""


class _Process:
    """An interpreter that has nothing: no environment, no packages, no folder of ours.

    Args:
        role: Arguments of `child`.
    """

    def __init__(self, *role: str) -> None:
        self._role, self._answers = role, {"value", "call", "unsent"} if role else {"value", "error"}

    def __enter__(self) -> Self:
        # -I would ignore PYTHONHASHSEED, without which the order of sets differs from run to run; nothing else of the
        # environment is handed over, so -P, -s and -S leave nothing for it to shut out.
        command = [sys.executable, "-P", "-s", "-S", "-B", str(_CHILD), *self._role]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"PYTHONHASHSEED": "0"},
                start_new_session=True,
            )
        except OSError as error:
            raise RunnerError(f"{command[0]} cannot be started: {error}") from error
        assert self._process.stdin is not None, "it is a pipe"
        assert self._process.stdout is not None, "it is a pipe"
        self._into, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._rest = b""
        self._until = time.monotonic() + PATIENCE
        try:
            self._line()
        except CodeError as error:
            self.__exit__(None, None, None)
            raise RunnerError(f"{command[0]} started and did not answer: {error}") from error
        self._until = time.monotonic() + SECONDS
        return self

    def ask(self, what: Any) -> Any:
        """Send a line; return the value that is answered.

        Raises:
            CodeError: There is none.
        """
        answer = self.exchange(what)
        if "error" in answer:
            error = answer["error"]  # which the code can call whatever it likes, and say what it was called with
            raise _RaisedError(f"it raises {error if error in _BUILT_IN else 'an exception of its own'}")
        return answer["value"]

    def exchange(self, what: Any) -> dict[str, Any]:
        """Send a line; return what is answered, which says more than nothing.

        Raises:
            CodeError: It is no answer.
        """
        self._send(json.dumps(what).encode() + b"\n")
        try:
            answer = json.loads(self._line())
        except (ValueError, RecursionError):
            raise CodeError("it writes where the answers go") from None
        if not isinstance(answer, dict) or not answer.keys() & self._answers:
            raise CodeError("it writes where the answers go")
        return answer

    def _send(self, data: bytes) -> None:
        os.set_blocking(self._into, False)
        while data:
            self._wait([], [self._into])
            try:
                data = data[os.write(self._into, data) :]
            except BrokenPipeError:
                raise CodeError("it ends the process") from None

    def _line(self) -> bytes:
        while b"\n" not in self._rest:
            self._wait([self._from], [])
            data = os.read(self._from, 65_536)
            self._rest += data
            if not data:
                raise CodeError("it takes too long" if self._end() == -signal.SIGXCPU else "it ends the process")
            if len(self._rest) > MOST_BYTES:
                raise CodeError("its value is too large")
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _wait(self, reading: list[int], writing: list[int]) -> None:
        poll = select.poll()  # select() knows no descriptor above 1023
        for descriptor in reading:
            poll.register(descriptor, select.POLLIN)
        for descriptor in writing:
            poll.register(descriptor, select.POLLOUT)
        if not poll.poll(max(0.0, self._until - time.monotonic()) * 1000):
            raise CodeError("it takes too long")

    def _end(self) -> int:
        """Kill the process and all that it started; return how it ended."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended
                os.killpg(self._process.pid, signal.SIGKILL)  # nobody has waited for it, so its number is still its own
        return self._process.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

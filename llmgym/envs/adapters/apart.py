"""Functions of a module called in a process of their own, in which sets have the same order everywhere.

``python -m llmgym.envs.adapters.apart MODULE`` is that process: it reads calls as lines of JSON and writes what they
return. It is no sandbox.
"""

import contextlib
import functools
import importlib
import json
import os
import subprocess
import sys
import threading
import time
from typing import Any


class Apart:
    """A process that calls functions of a module; it is started by the first call, and ends with this one.

    Arguments and results are what JSON can hold. Threads take turns.

    Args:
        module: The module.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def call(self, function: str, *arguments: Any, limit: float) -> Any:
        """Call a function of the module.

        Args:
            function: Its name.
            arguments: What it is given.
            limit: Seconds that it may take, the start of the process not counted.

        Raises:
            TimeoutError: It took longer; the process is ended, and the next call starts another one.
            RuntimeError: It raised an exception, or the process ended.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = self._start()
            process = self._process
            assert process.stdin is not None
            assert process.stdout is not None
            timer = threading.Timer(limit, process.kill)
            timer.start()
            began = time.monotonic()
            try:
                process.stdin.write(json.dumps([function, *arguments]) + "\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            except BrokenPipeError:
                answer = ""
            finally:
                timer.cancel()
            if not answer:
                code = process.wait()
                if time.monotonic() - began >= limit:
                    raise TimeoutError(f"{self._module}.{function} took longer than {limit:g} s")
                raise RuntimeError(f"The process of {self._module} ended with exit code {code}.")
        result = json.loads(answer)
        if "error" in result:
            raise RuntimeError(f"{self._module}.{function}: {result['error']}")
        return result["result"]

    def _start(self) -> "subprocess.Popen[str]":
        process = start(__name__, self._module)
        assert process.stdout is not None
        process.stdout.readline()  # it is ready
        return process


def start(module: str, *arguments: str) -> "subprocess.Popen[str]":
    """Run a module in a process that reads and writes lines, and in which sets have the same order everywhere."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def apart(module: str) -> Apart:
    """Return the process that calls functions of a module; a fork of this process gets another one."""
    return _apart(module, os.getpid())


@functools.cache
def _apart(module: str, parent: int) -> Apart:
    return Apart(module)


def serve(name: str) -> None:
    """Read calls from the standard input until it ends; print what they return."""
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # packages print
        module = importlib.import_module(name)
        print("{}", file=answers, flush=True)
        for line in sys.stdin:
            function, *arguments = json.loads(line)
            try:
                result = {"result": getattr(module, function)(*arguments)}
            except Exception as error:  # noqa: BLE001  # whatever it raises is for the caller
                result = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])

"""The forker and the workers, as the pool sees them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from llmgym.errors import ConfigError
from llmgym.workers import frames
from llmgym.workers.forker import FORK, NUMBER, REAP, STARTING, kill
from llmgym.workers.output import kept_output

Value = TypeVar("Value")

PATIENCE = 120.0  # seconds that imports may take

MEMORY = 2 * 2**30
"""Bytes that a worker may take beyond what it has at its start."""


class WorkerError(Exception):
    """A worker did not answer: it took too long, or it ended.

    Args:
        message: What happened.
        timed_out: Whether it took too long.
    """

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class Forker:
    """The process that forks workers; see `llmgym.workers.forker`.

    Args:
        handler: ``"module:function"``, which answers messages.
        first: The message that it answers itself, such as what to import; the answer is {"error": why} if it cannot.
        memory: Bytes that a worker may take beyond what is there when it is forked.
        log: File to append what it and its workers print to; None for nowhere.

    Raises:
        ConfigError: It cannot do what the first message says.
    """

    def __init__(self, handler: str, first: Any, memory: int = MEMORY, log: Path | None = None) -> None:
        if STARTING in os.environ:
            raise ConfigError(
                "workers: this process is being started for a run, and may not start another one; guard what a script "
                'runs with `if __name__ == "__main__":`'
            )
        try:
            opening = frames.packed(first)
        except ValueError as error:
            raise ConfigError(f"workers: {error}") from error
        self._lock = threading.Lock()
        self._socket, other = socket.socketpair()
        begin = f"from llmgym.workers.forker import main; main({other.fileno()}, {memory}, {handler!r})"
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        with other, kept_output(log) as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-u", "-c", begin],  # -P: it finds modules where this process does
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[other.fileno()],
                env={**os.environ, **threads, "PYTHONPATH": paths, STARTING: "1"},
                start_new_session=True,  # Ctrl-C is for this process alone
            )
        try:
            self._socket.sendall(opening)
            said = frames.receive(self._socket, time.monotonic() + PATIENCE)
        except TimeoutError:
            said = {"error": f"they are not there after {PATIENCE:g} s"}
        except (EOFError, OSError):
            said = {"error": f"their process ended with {in_words(self._process.wait())}"}
        except BaseException:
            self._process.kill()
            self.close()
            raise
        if isinstance(said, dict) and "error" in said:
            self.close()
            raise ConfigError(f"Workers cannot be started: {said['error']}")
        self.answer = said
        """To the first message."""
        self._socket.settimeout(PATIENCE)

    def fork(self) -> "Worker":
        """Return a new worker.

        Raises:
            WorkerError: The forker has ended.
        """
        try:
            here, there = socket.socketpair()
        except OSError as error:
            raise WorkerError(f"no worker can be started: {error}") from error
        with there:
            try:
                with self._lock:
                    socket.send_fds(self._socket, [FORK], [there.fileno()])
                    number = self._number()
            except OSError as error:
                here.close()
                raise WorkerError(f"no worker can be started: {error}") from error
        if number < 0:
            here.close()
            raise WorkerError("no worker can be started: the system has no room for another process")
        return Worker(self, here, number)

    def reap(self, worker: int) -> int:
        """Return how a worker that is ending ends."""
        with contextlib.suppress(OSError), self._lock:
            self._socket.sendall(REAP + NUMBER.pack(worker))
            return self._number()
        return -signal.SIGKILL

    def close(self) -> None:
        """End the process and all workers."""
        self._socket.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _number(self) -> int:
        data = self._socket.recv(NUMBER.size, socket.MSG_WAITALL)
        if len(data) < NUMBER.size:
            raise ConnectionError("the process that forks workers has ended")
        number: int = NUMBER.unpack(data)[0]
        return number


class Worker:
    """A process that answers messages.

    Args:
        forker: Its parent.
        connection: To it.
        number: Of the process.
    """

    def __init__(self, forker: Forker, connection: socket.socket, number: int) -> None:
        self._forker, self._connection, self._number = forker, connection, number
        self._ending = threading.Lock()
        self._ended: int | None = None

    def send(self, messages: Sequence[bytes], limit: float) -> None:
        """Send messages, each packed; the worker answers one after another.

        Args:
            messages: At least the first will be read at once. The others have to fit what the system buffers.
            limit: Seconds that it may take.

        Raises:
            WorkerError: The worker has ended, and is of no more use.
        """
        self._tried(limit, lambda until: self._connection.sendall(b"".join(messages)))

    def receive(self, limit: float) -> Any:
        """Return the next answer.

        Args:
            limit: Seconds that it may take.

        Raises:
            WorkerError: There is none; the worker has ended, and is of no more use.
        """
        return self._tried(limit, lambda until: frames.receive(self._connection, until))

    def _tried(self, limit: float, act: Callable[[float], Value]) -> Value:
        try:
            self._connection.settimeout(limit)
            return act(time.monotonic() + limit)
        except TimeoutError:
            self.end()
            raise WorkerError(f"it took longer than {limit:g} s", timed_out=True) from None
        except (EOFError, OSError):
            raise WorkerError(f"it ended its process with {in_words(self.end())}") from None
        except (ValueError, RecursionError):
            self.end()
            raise WorkerError("it wrote where the answers go") from None

    def end(self) -> int:
        """Kill the process, if it has not ended; return how it ended. Whoever waits for an answer is told so."""
        with self._ending:
            if self._ended is None:
                with contextlib.suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)
                self._connection.close()
                kill(self._number)
                self._ended = self._forker.reap(self._number)
            return self._ended


def in_words(code: int) -> str:
    """Say how a process ended.

    Examples:
        >>> in_words(3), in_words(-11)
        ('exit code 3', 'SIGSEGV')
    """
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"

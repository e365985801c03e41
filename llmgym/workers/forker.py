"""The process that forks workers; see `llmgym.workers.worker.Forker`, which starts it.

It imports the handler, a function of one message that returns the answer, and answers the first message itself: that
one says what else to import. It then forks a worker whenever the pool asks for one. A worker answers one message after
another. All of them end with the pool. What they print goes to the error output of the forker.
"""

import contextlib
import ctypes
import importlib
import os
import resource
import select
import signal
import socket
import struct
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from llmgym.workers import frames

STARTING = "LLMGYM_WORKERS_STARTING"
"""Environment variable of a forker that imports what it is told to; nothing of that may start workers itself."""

FORK, REAP = b"F", b"R"
"""What the pool asks for: a worker, with the socket that it is to use; or how a worker, by its number, ended."""

NUMBER = struct.Struct("!q")

_PR_SET_PDEATHSIG = 1

Handler = Callable[[Any], Any]


def main(descriptor: int, memory: int, handler: str) -> None:
    """Answer the first message, and fork workers until the pool ends."""
    pool = socket.socket(fileno=descriptor)
    os.dup2(2, 1)
    try:
        with _ending_with(pool):
            module, _, name = handler.partition(":")
            function = getattr(importlib.import_module(module), name)
            answer = function(frames.receive(pool))
    except BaseException as error:  # noqa: BLE001  # a module that exits is imported in vain, too
        traceback.print_exc()
        frames.send(pool, {"error": f"{type(error).__name__}: {error}"})
        return
    os.environ.pop(STARTING, None)
    frames.send(pool, answer)
    workers: set[int] = set()
    try:
        while _served(pool, function, memory, workers):
            pass
    finally:
        for worker in workers:
            kill(worker)


@contextlib.contextmanager
def _ending_with(pool: socket.socket) -> Iterator[None]:
    """End this process if the pool ends meanwhile."""
    over = threading.Event()

    def watch() -> None:
        poll = select.poll()
        poll.register(pool, select.POLLHUP | getattr(select, "POLLRDHUP", 0))
        while not over.is_set():
            if poll.poll(100):
                os._exit(1)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _served(pool: socket.socket, handler: Handler, memory: int, workers: set[int]) -> bool:
    """Do what the pool asks for next; False if it has ended."""
    asked, descriptors, _, _ = socket.recv_fds(pool, 1, 1)
    if asked == FORK:
        try:
            worker = os.fork()
        except OSError:  # there is no room for one now
            worker = -1
        if not worker:
            pool.close()
            _work(socket.socket(fileno=descriptors[0]), handler, memory)
        os.close(descriptors[0])
        if worker > 0:
            workers.add(worker)
        pool.sendall(NUMBER.pack(worker))
    elif asked == REAP:
        (worker,) = NUMBER.unpack(pool.recv(NUMBER.size, socket.MSG_WAITALL))
        workers.discard(worker)
        _, status = os.waitpid(worker, 0)
        pool.sendall(NUMBER.pack(os.waitstatus_to_exitcode(status)))
    return bool(asked)


def _work(pool: socket.socket, handler: Handler, memory: int) -> NoReturn:
    """Answer messages until there are no more."""
    os.setsid()
    _bound(memory)
    np.random.seed()  # else all workers draw the same; Python's own generator sees to that itself
    me = os.getpid()
    try:
        while True:
            answer = handler(frames.receive(pool))
            if os.getpid() != me:  # the function has forked
                os._exit(0)
            frames.send(pool, answer)
    except (EOFError, BrokenPipeError):
        os._exit(0)
    except BaseException:  # noqa: BLE001  # whatever it is, this process must not go on as a second forker
        traceback.print_exc()
    finally:
        os._exit(1)


def _bound(memory: int) -> None:
    """End with the forker, leave no core behind, and take no more memory than is allowed beyond what is there."""
    with contextlib.suppress(OSError, AttributeError):  # only Linux has it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):  # macOS bounds no memory, and tells of none here
        pages = int(Path("/proc/self/statm").read_text().split()[5])  # of data and stack, not of files that are mapped
        most = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def kill(worker: int) -> None:
    """Kill a worker and what it has started, if it was not waited for yet."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(worker, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):  # it has not begun, and so has no group of its own
        os.kill(worker, signal.SIGKILL)

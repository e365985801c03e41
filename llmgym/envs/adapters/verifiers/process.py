"""The process that plays a taskset, as its environments see it; they share it."""

import itertools
import json
import os
import queue
import subprocess
import threading
import weakref
from typing import Any

from llmgym import errors
from llmgym.envs.adapters.apart import start

Json = dict[str, Any]

_ENDED: Json = {"raised": "the process of the taskset ended"}


class Process:
    """A process that plays episodes of a taskset side by side.

    Args:
        name: The taskset.
        config: Its configuration, as JSON.

    Raises:
        ConfigError: The taskset is refused, or its configuration is.
        UnknownNameError: There is no such taskset.
    """

    def __init__(self, name: str, config: str) -> None:
        self._process = start("llmgym.envs.adapters.verifiers.worker", name, config)
        weakref.finalize(self, _end, self._process)
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._news: dict[int, queue.SimpleQueue[Json]] = {}
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise errors.ConfigError(f"verifiers:{name}: its process ended while it was loaded; its output says why.")
        first = json.loads(line)
        if "refused" in first:
            raise getattr(errors, first["refused"])(first["message"])
        self.splits: dict[str, list[int]] = first["splits"]
        """The numbers of the tasks of each split."""
        threading.Thread(target=_hand_out, args=(self._process, self._news), daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def begin(self, task: int, seed: int) -> "Episode":
        """Begin an episode of a task."""
        number = next(self._numbers)
        self._news[number] = queue.SimpleQueue()
        episode = Episode(self, number, self._news[number])
        self.send({"episode": number, "task": task, "seed": seed})
        return episode

    def send(self, order: Json) -> None:
        """Tell it what to do."""
        assert self._process.stdin is not None
        with self._lock:
            try:
                self._process.stdin.write(json.dumps(order) + "\n")
                self._process.stdin.flush()
            except BrokenPipeError:
                self._news[order["episode"]].put(_ENDED)

    def forget(self, number: int) -> None:
        """End an episode, wherever it is."""
        self.send({"episode": number})
        self._news.pop(number, None)

    def kill(self) -> None:
        """End it, with all its episodes."""
        _end(self._process)


class Episode:
    """An episode that another process plays.

    Args:
        process: The process.
        number: The episode's.
        news: What the process says of it.
    """

    def __init__(self, process: Process, number: int, news: "queue.SimpleQueue[Json]") -> None:
        self._process, self._number, self._inbox = process, number, news

    def reply(self, text: str | None) -> None:
        """Hand over a reply; None if there will be no more."""
        self._process.send({"episode": self._number, "reply": text})

    def news(self, limit: float) -> Json:
        """Return what comes next: messages, or the end.

        Raises:
            RuntimeError: The taskset's code raised an exception, or took longer than the limit in seconds.
        """
        try:
            news = self._inbox.get(timeout=limit)
        except queue.Empty:
            self._process.kill()
            raise RuntimeError(f"the taskset took longer than its timeout of {limit:g} s") from None
        if "raised" in news:
            raise RuntimeError(news["raised"])
        return news

    def end(self) -> None:
        """End it, wherever it is."""
        self._process.forget(self._number)


def process(name: str, config: str) -> Process:
    """Return the process that plays a taskset; a fork of this process gets another one."""
    key = name, config, os.getpid()
    with _lock:
        found = _processes.get(key)
        if found is None or not found.alive:
            found = _processes[key] = Process(name, config)
    return found


_lock = threading.Lock()
_processes: "weakref.WeakValueDictionary[tuple[str, str, int], Process]" = weakref.WeakValueDictionary()


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()


def _hand_out(process: "subprocess.Popen[str]", inboxes: dict[int, "queue.SimpleQueue[Json]"]) -> None:
    """Put what a process says into the inbox of its episode, until the process ends."""
    assert process.stdout is not None
    for line in process.stdout:
        news = json.loads(line)
        inbox = inboxes.get(news.pop("episode"))
        if inbox is not None:
            inbox.put(news)
    for inbox in list(inboxes.values()):
        inbox.put(_ENDED)

"""Pools of workers: what they answer, how they end, and that nothing of them is left."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from llmgym.errors import ConfigError
from llmgym.workers import Pool, WorkerError


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def gone(pid: int, patience: float = 10.0) -> bool:
    until = time.monotonic() + patience
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pid)


def test_answers_belong_to_their_messages() -> None:
    with Pool("json:loads", size=3, limit=10.0, first="{}") as pool:
        asked = [pool.submit(str(number)) for number in range(200)]
        assert [one.result() for one in asked] == list(range(200))


def test_surrogates_and_megabytes_are_handed_over_as_they_are() -> None:
    with Pool("builtins:str", size=1, limit=30.0, first="") as pool:
        for text in ("\ud800 \x00 \u202e", "x" * 10**7, "é" * 10**6):
            assert pool.submit(text).result() == text


def test_a_worker_that_ends_is_replaced_and_says_why() -> None:
    with Pool("time:sleep", size=1, limit=0.3, first=0) as pool:
        for _ in range(3):
            with pytest.raises(WorkerError, match=r"it took longer than 0\.3 s"):
                pool.submit(1000).result()
            assert pool.submit(0).result() is None


def test_an_exception_of_the_handler_ends_the_worker_alone() -> None:
    with Pool("json:loads", size=1, limit=10.0, first="{}") as pool:
        with pytest.raises(WorkerError, match="exit code 1"):
            pool.submit("{").result()
        assert pool.submit("[]").result() == []


def test_what_the_first_message_cannot_do_is_one_error() -> None:
    with pytest.raises(ConfigError, match="Workers cannot be started: JSONDecodeError"):
        Pool("json:loads", size=1, limit=1.0, first="{")
    with pytest.raises(ConfigError, match="No module named 'no_such_module'"):
        Pool("no_such_module:answer", size=1, limit=1.0)


def test_a_file_in_the_working_directory_is_no_module_of_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dataclasses.py").write_text("raise ImportError('it was imported')")
    monkeypatch.chdir(tmp_path)
    with Pool("json:loads", size=1, limit=10.0, first="{}") as pool:
        assert pool.submit("[]").result() == []


def test_closing_ends_calls_and_processes() -> None:
    pool = Pool("time:sleep", size=2, limit=60.0, first=0)
    asked = [pool.submit(1000) for _ in range(4)]
    time.sleep(0.5)
    pool.close()
    for one in asked:
        with pytest.raises((WorkerError, CancelledError)):
            one.result(20)


def test_no_process_outlives_one_that_is_killed() -> None:
    code = (
        "import sys, time\n"
        "from llmgym.workers import Pool\n"
        "pool = Pool('time:sleep', size=2, limit=100.0, first=0)\n"
        "asked = [pool.submit(90) for _ in range(2)]\n"
        "time.sleep(1)\n"
        "print(pool._forker._process.pid, flush=True)\n"
        "time.sleep(100)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        forker = int(process.stdout.readline())
        children = [int(pid) for pid in Path(f"/proc/{forker}/task/{forker}/children").read_text().split()]
        assert len(children) == 2
        process.send_signal(signal.SIGKILL)
    assert all(map(gone, [forker, *children]))

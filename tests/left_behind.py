"""What a run has on a machine, and leaves there: processes, files, shared memory and sockets."""

import os
import subprocess
import time
from pathlib import Path


def left_of(temporary: Path) -> list[str]:
    """Return the files of a run's Ray, and the commands of processes that have one of them open or name it.

    Args:
        temporary: The directory for temporary files that the run was given.
    """
    found = [str(one) for one in temporary.glob("llmgym-ray-*")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            names = [os.readlink(one) for one in (process / "fd").iterdir()]
            command = (process / "cmdline").read_text()
        except OSError:
            continue
        if any(f"{temporary}/llmgym-ray-" in one for one in (command, *names)):
            found.append(command)
    return found


def processes_of(temporary: str, command: str) -> list[int]:
    """Return the processes of a run whose command has some words in it.

    Args:
        temporary: The directory for temporary files that the run was given.
        command: The words.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            mine = f"TMPDIR={temporary}".encode() in (process / "environ").read_bytes()
            if mine and command.encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def on_the_machine() -> set[str]:
    """Return what is in shared memory, and which sockets listen."""
    listening = subprocess.run(["ss", "-tlnH"], check=False, capture_output=True, text=True).stdout.splitlines()
    shared = {one.name for one in Path("/dev/shm").iterdir()}
    return shared | {line.split()[3] for line in listening}


def wait_until_nothing_is_left(temporary: Path, before: set[str], seconds: float = 60) -> None:
    """Fail if something is left of a run after some seconds.

    Args:
        temporary: The directory for temporary files that the run was given.
        before: What was on the machine before the run.
        seconds: In which it may go.
    """
    until = time.monotonic() + seconds
    while (left := [*left_of(temporary), *(on_the_machine() - before)]) and time.monotonic() < until:
        time.sleep(0.5)
    assert left == []
    assert list(temporary.iterdir()) == []

"""How many threads torch should use: no more than this process may keep busy."""

import math
import os
from pathlib import Path

import torch

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of processor time, and in how many


def use_available_processors() -> int:
    """Keep torch to the processors that this process may use; returns its threads.

    torch counts those of the machine, or of the process's affinity; in a container that may
    use less, more threads than that wait for each other. ``OMP_NUM_THREADS``, where it is
    set, is the user's word and is left alone.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), quota(_QUOTA)))
    return torch.get_num_threads()


def quota(path: Path) -> int:
    """Return how many processors a cgroup grants, as its ``cpu.max`` says; very many if it sets no bound."""
    try:
        time, period = path.read_text().split()
    except (OSError, ValueError):  # no cgroup of the second version
        return 2**16
    return 2**16 if time == "max" else max(1, math.ceil(int(time) / int(period)))

"""What training will need: memory by its purpose, and seconds per token, measured on a few tokens."""

import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from llmgym.models.shards import in_shards, own_part

GIB = 2**30


@dataclass(frozen=True)
class Needs:
    """The memory and time that a training step needs.

    Attributes:
        held: Bytes that the process holds already, on the device that learns.
        to_come: Bytes that it will need in addition, by what they are for.
        free: Bytes that the device still has; None if unknown.
        forward: Seconds of a forward pass per token.
        backward: Seconds of a backward pass per token.
    """

    held: int
    to_come: Mapping[str, int]
    free: int | None
    forward: float
    backward: float

    @property
    def fits(self) -> bool:
        """Whether the memory to come fits into the free memory, as far as that is known."""
        return self.free is None or sum(self.to_come.values()) <= self.free

    def __str__(self) -> str:
        """Return memory and time as a sentence."""
        large = {what: size for what, size in self.to_come.items() if size >= GIB / 20}  # which would not read 0.0
        parts = "".join(f", {size / GIB:.1f} GiB for {what}" for what, size in large.items())
        total = self.held + sum(self.to_come.values())
        free = "" if self.free is None else f"; {self.free / GIB:.1f} GiB are free"
        return f"Memory: about {total / GIB:.1f} GiB, of which {self.held / GIB:.1f} GiB are held now{parts}{free}."


def some_tokens(model: PreTrainedModel, rows: int) -> Tensor:
    """Return rows of a few tokens, the same ones for the same vocabulary, to try a model with.  [rows, 65]"""
    random = torch.Generator().manual_seed(0)
    return torch.randint(model.get_input_embeddings().num_embeddings, (rows, 65), generator=random)


def training_needs(
    loss: nn.Module, *, policy: nn.Module, run: Callable[[], Tensor], tokens: int, batch_tokens: int, reference: bool
) -> Needs:
    """Measure a forward and a backward pass over a few tokens, and return what training will need.

    Args:
        loss: What learns, besides the policy perhaps a critic.
        policy: What `run` runs.
        run: Runs a few tokens; returns a number to differentiate.
        tokens: How many it runs.
        batch_tokens: Tokens of a forward pass in training.
        reference: Whether a frozen copy of what is trained will be kept.
    """
    trained = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    parts = [own_part(parameter) for parameter in trained]
    kept_size = sum(part.nbytes for part in parts)
    size = sum(part.numel() * max(4, part.itemsize) for part in parts)  # of what the optimiser steps
    passes = _trunks(loss, policy)
    kept, result = _kept_for_backward(run, loss)
    _run_back(result, trained)  # the first time memory is fresh, which is slow
    begun = time.perf_counter()
    result = run()
    done = time.perf_counter()
    _run_back(result, trained)
    backward = time.perf_counter() - done
    device = trained[0].device
    return Needs(
        held=_held(device),
        to_come={
            "gradients": size,
            "the optimiser": 2 * size,
            "the reference": kept_size if reference else 0,
            f"activations of {batch_tokens:,} tokens": passes * kept * batch_tokens // tokens,
        },
        free=free_memory(device),
        forward=passes * (done - begun) / tokens,
        backward=passes * backward / tokens,
    )


def seconds_of(seconds: float) -> str:
    """Return seconds as text, in a unit that is easy to read.

    Examples:
        >>> seconds_of(0.0123), seconds_of(4.56), seconds_of(110.4), seconds_of(1000), seconds_of(9000)
        ('0.012 s', '4.6 s', '110 s', '17 min', '2.5 h')
    """
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.1f} h"
    if seconds >= 600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def free_memory(device: torch.device) -> int | None:
    """Return how many bytes a device can still give to this process; None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [_machine_free(), _container_free(Path("/sys/fs/cgroup"))]
    return min((size for size in found if size is not None), default=None)


def peak_memory(device: torch.device) -> dict[str, float]:
    """Return the most memory that the process has had so far, in GiB, by the metric that says so.

    Args:
        device: Where it learns; if that is a GPU, the memory that torch took there is told as well.
    """
    found = {"memory_gib": peak_bytes() / GIB}
    if device.type == "cuda":
        found["gpu_memory_gib"] = torch.cuda.max_memory_allocated(device) / GIB
        found["gpu_memory_reserved_gib"] = torch.cuda.max_memory_reserved(device) / GIB
    return found


def peak_bytes() -> int:
    """Return the most memory that this process has had so far."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):  # no Linux; there, what a process was started by counts in what follows
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _kept_for_backward(run: Callable[[], Tensor], loss: nn.Module) -> tuple[int, Tensor]:
    """Return how many bytes a forward pass keeps for its backward pass, parameters aside, and its result."""

    def places() -> set[int]:
        return {own_part(parameter).untyped_storage().data_ptr() for parameter in loss.parameters()}

    known, moves, kept = places(), any(map(in_shards, loss.parameters())), dict[int, int]()

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in (places() if moves else known):  # a layer in shards is together while it runs
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = run()
    return sum(kept.values()), result


def _run_back(result: Tensor, parameters: Iterable[Tensor]) -> None:
    """Run a backward pass, and forget the gradients; gradients of parameters in shards come by no other way."""
    result.backward()  # type: ignore[no-untyped-call]  # torch does not say
    for parameter in parameters:
        parameter.grad = None


def _trunks(loss: nn.Module, policy: nn.Module) -> int:
    """Return how many models of the policy's size a loss runs: one, or two where a critic has one of its own."""
    of_policy = sum(parameter.numel() for parameter in policy.parameters())
    return max(1, round(sum(parameter.numel() for parameter in loss.parameters()) / of_policy))


def _held(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])  # resident
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _machine_free() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _container_free(cgroup: Path) -> int | None:
    """Return the bytes left under a container's memory limit; None if it has none."""
    try:
        bound, used = (cgroup / "memory.max").read_text().strip(), (cgroup / "memory.current").read_text()
        return None if bound == "max" else max(0, int(bound) - int(used))
    except (OSError, ValueError):  # no cgroup of the second version
        return None

"""Ranks: processes that learn together, each from a share of every batch. With one process, nothing happens here.

Token weights, advantages and counts are those of the whole batch, which every rank has. So what ranks add up is what
one process computes. The first rank plays, evaluates and writes; it tells the others what to call.
"""

import contextlib
import datetime
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, TypeVarTuple

import torch
import torch.distributed as dist
from tensordict import TensorDictBase
from torch import Tensor

from llmgym.errors import AlgorithmError, ConfigError, EngineError, LLMGymError, RankLostError, TrainingError
from llmgym.models.shards import in_shards

Item = TypeVar("Item")
Given = TypeVarTuple("Given")
Found = TypeVar("Found")

SHARED_ERRORS = (TrainingError, AlgorithmError, EngineError)
"""Errors in learning from a batch that all ranks have if one has them."""

_TRANSPORTS = ("gloo", "NCCL", "Connection closed by peer")  # what ranks speak over, as its errors name it
_END = "end"  # what the first rank says last
_A_WEEK = datetime.timedelta(days=7)  # that the first rank may play for
_messages: dist.ProcessGroup | None = None
_sharing = False
_calling = _failed_alone = False


def join() -> None:
    """Join the other ranks if this process was started as one of several, as ``torchrun`` starts them.

    A rank that has a GPU takes the one of its local number. What others than the first print goes nowhere.
    """
    global _messages
    if not dist.is_available() or _messages is not None:
        return
    if not dist.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return
        if "MASTER_ADDR" not in os.environ:
            raise ConfigError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, and MASTER_ADDR is not set: expected torchrun, which sets "
                "both, or neither for a run of one process."
            )
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    _messages = dist.new_group(backend="gloo", timeout=_A_WEEK)
    if number():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # for as long as the process lives


def count() -> int:
    """Return how many ranks there are."""
    return 1 if _messages is None else dist.get_world_size()


def number() -> int:
    """Return which rank this is; the first one is 0."""
    return 0 if _messages is None else dist.get_rank()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Share work within a block, which all ranks have to enter; outside of it each rank is alone."""
    global _sharing
    before, _sharing = _sharing, count() > 1
    try:
        yield
    finally:
        _sharing = before


@contextlib.contextmanager
def own_share() -> Iterator[None]:
    """Mark a block in which each rank does something else: others need not have the error that one of them has."""
    global _failed_alone
    try:
        yield
    except BaseException:
        _failed_alone = True
        raise


def dealt(items: Sequence[Item]) -> Iterator[tuple[Item, bool]]:
    """Yield this rank's share, every n-th item where there are n ranks, each with True.

    A rank whose share is shorter than another's is given the last item besides, with False: all ranks take the same
    number of passes, since those of a sharded model need every rank.
    """
    among, first = (count(), number()) if _sharing else (1, 0)
    for turn in range(first, len(items) + first, among):
        yield items[min(turn, len(items) - 1)], turn < len(items)


def add_up(tensor: Tensor) -> Tensor:
    """Set a tensor to the sum over all ranks, and return it."""
    if _sharing:
        dist.all_reduce(tensor)
    return tensor


def add_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Set gradients to their sums over all ranks; one that no rank has stays None. Those in shards are sums already."""
    those = [one for one in parameters if not in_shards(one)]
    if not _sharing or not those:
        return
    has = torch.tensor([float(one.grad is not None) for one in those], device=those[0].device)
    for parameter, anybody in zip(those, add_up(has).tolist(), strict=True):
        if anybody:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            dist.all_reduce(parameter.grad)


def fill(values: Tensor) -> Tensor:
    """Set what is NaN in a tensor and is not on another rank to what it is there, and return it."""
    if _sharing:
        known = ~values.isnan()
        filled, times = add_up(values.nan_to_num(0.0, math.inf, -math.inf)), add_up(known.to(values))
        values.copy_((filled / times).masked_fill(times == 0, torch.nan))
    return values


def total(metrics: dict[str, float]) -> dict[str, float]:
    """Return the sums of metrics over all ranks, by name."""
    if not _sharing:
        return metrics
    everybodys: list[dict[str, float]] = [{}] * count()
    dist.all_gather_object(everybodys, metrics, group=_messages)
    names = dict.fromkeys(name for one in everybodys for name in one)
    return {name: sum(one.get(name, 0.0) for one in everybodys) for name in names}


def from_first(tensor: Tensor) -> Tensor:
    """Return what a tensor is on the first rank, on the processor; elsewhere only its shape and type matter."""
    if not _sharing:
        return tensor
    sent = torch.empty_like(tensor, device="cpu") if number() else tensor.cpu().contiguous()
    dist.broadcast(sent, src=0, group=_messages)
    return sent


def outline(message: Any) -> Any:
    """Return a message with tensors that have only a shape and a type."""
    return _with_tensors(message, lambda tensor: tensor.to("meta"))


def call(
    name: str,
    function: Callable[[*Given], Found],
    *given: *Given,
    told: Sequence[Any] | None = None,
    fails: tuple[type[LLMGymError], ...] = (),
) -> Found:
    """Have all ranks call what they know by a name, and return what it gives here; only the first one asks.

    Args:
        name: See `serve`.
        function: What this rank calls.
        given: Its arguments, and those of the others.
        told: What the others are given, where that is something else.
        fails: Errors that all ranks have if one has them outside of its `own_share`; after any other one,
            `out_of_step` is true.
    """
    global _calling
    _calling = True
    _tell((name, given if told is None else told))
    with together():
        try:
            found = function(*given)
        except fails:
            _calling = _failed_alone
            raise
        except RuntimeError as error:
            if isinstance(error, LLMGymError) or not any(name in str(error) for name in _TRANSPORTS):
                raise
            raise RankLostError(
                f"Another rank ended in the middle of an update, or cannot be reached: {error!s:.200} The run goes on "
                "from its last checkpoint with --resume."
            ) from error
    _calling = False
    return found


def out_of_step() -> bool:
    """Tell whether others are in the middle of a call, or were when this rank failed in it."""
    return _calling and count() > 1


def end(message: Any) -> None:
    """Tell all other ranks that it is over, and wait until they have heard it."""
    _tell((_END, message))
    _meet()


def _meet() -> None:
    """Wait for all others: what was sent would be lost if a process ended before it is read."""
    if count() > 1:
        with contextlib.suppress(RuntimeError):  # somebody has left
            dist.barrier(group=_messages)


def serve(functions: Mapping[str, Callable[..., Any]]) -> Any:
    """Call what the first rank has all ranks call, until it says that it is over; return what it says last.

    Args:
        functions: What this rank calls, by name.

    Raises:
        LLMGymError: One of them failed here, and not on the first rank.
        SystemExit: The first rank has left.
    """
    failed: tuple[str, LLMGymError] | None = None
    while (told := _hear())[0] != _END:
        name, given = told
        if failed is not None and name == failed[0]:
            raise failed[1]
        try:
            with together():
                functions[name](*given)
        except Exception as error:
            if _failed_alone or not isinstance(error, SHARED_ERRORS):
                error.add_note(f"Rank {number()} alone has this error.")
                raise
            failed = name, error  # the first rank has the same one, and saves
    _meet()
    if failed is not None and told[1] is not None:
        raise failed[1]
    return told[1]


def _tell(message: Any) -> None:
    """Tell all other ranks something; only the first one does. Tensors arrive on the processor."""
    if count() > 1:
        on_cpu = _with_tensors(message, lambda one: one if one.is_meta else one.cpu())  # not on this rank's device
        with contextlib.suppress(RuntimeError):  # they are gone, and whoever started them ends this one too
            dist.broadcast_object_list([on_cpu], src=0, group=_messages)


def _hear() -> Any:
    """Return what the first rank tells next.

    Raises:
        SystemExit: It has left.
    """
    told = [None]
    try:
        dist.broadcast_object_list(told, src=0, group=_messages)
    except RuntimeError:
        raise SystemExit(1) from None
    return told[0]


def _with_tensors(message: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a message with other tensors."""
    if isinstance(message, TensorDictBase):
        return message.apply(change)
    if isinstance(message, Tensor):
        return change(message)
    if isinstance(message, dict):
        return {key: _with_tensors(one, change) for key, one in message.items()}
    if type(message) in (list, tuple):
        return type(message)(_with_tensors(one, change) for one in message)
    return message


def leave() -> None:
    """Leave the other ranks, which may wait for this one; they fail then."""
    global _messages
    if _messages is not None:
        _messages = None
        with contextlib.suppress(RuntimeError):  # somebody has left before
            dist.destroy_process_group()

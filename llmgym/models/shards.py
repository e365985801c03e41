"""Parameters of which each process holds a part (DTensor)."""

from typing import Any

import torch
from torch import Tensor, nn

from llmgym.errors import ModelError


def check_whole(model: nn.Module) -> None:
    """Refuse parameters in shards.

    Raises:
        ModelError: One is a DTensor, as tensor parallelism and FSDP make them, or flat, as FSDP1 makes them.
    """
    if not torch.distributed.is_available():
        return
    from torch.distributed.fsdp import FlatParameter  # not on every platform

    for name, parameter in model.named_parameters():
        if in_shards(parameter) or isinstance(parameter, FlatParameter):
            kind = "DTensor" if in_shards(parameter) else "FlatParameter"
            raise ModelError(f"Expected a model whose parameters are whole, got {name!r} in shards, as a {kind}.")


def in_shards(tensor: Tensor) -> bool:
    """Tell whether a process holds only a part of a tensor: a DTensor, which cannot be imported on every platform."""
    return hasattr(tensor, "device_mesh")


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with all its parts; all processes have to ask for it."""
    return tensor.full_tensor() if in_shards(tensor) else tensor  # type: ignore[attr-defined]  # that of a DTensor


def own_part(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds."""
    return tensor.to_local() if in_shards(tensor) else tensor  # type: ignore[attr-defined]  # that of a DTensor


def in_parts_of(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a tensor in the same parts as another one of its shape; each process has to have all of it."""
    if not in_shards(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor  # not on every platform

    parted: Any = like
    return distribute_tensor(tensor.to(like.device), parted.device_mesh, parted.placements, src_data_rank=None)

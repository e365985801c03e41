"""Parameters of which a process holds a part, which nothing here computes with."""

import torch
from torch import nn

from llmgym.errors import ModelError


def check_whole(model: nn.Module) -> None:
    """Refuse parameters in shards.

    Raises:
        ModelError: One is a DTensor, as tensor parallelism and FSDP make them, or flat, as FSDP1 makes them.
    """
    if not torch.distributed.is_available():
        return
    from torch.distributed.fsdp import FlatParameter  # not on every platform
    from torch.distributed.tensor import DTensor  # likewise

    for name, parameter in model.named_parameters():
        if isinstance(parameter, DTensor | FlatParameter):
            kind = "DTensor" if isinstance(parameter, DTensor) else "FlatParameter"
            raise ModelError(f"Expected a model whose parameters are whole, got {name!r} in shards, as a {kind}.")

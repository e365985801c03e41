"""Sharding: ranks keep a part each of all parameters, gradients and optimiser states (FSDP2).

A layer's parameters are put together when the layer runs, and are parted again. What a process reads or writes of
parameters in shards, all ranks have to read or write.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, TypeVarTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from llmgym.learn import ranks
from llmgym.learn.trunk import Trunk
from llmgym.models.shards import in_shards, whole

Given = TypeVarTuple("Given")
Found = TypeVar("Found")


def shard(module: nn.Module) -> None:
    """Part the parameters of a loss among all ranks, in place; gradients will be sums over ranks.

    Args:
        module: What learns. Models are sharded by layers.
    """
    for trunk in [one for one in module.modules() if isinstance(one, Trunk)]:
        for layer in [one for one in trunk.body.modules() if isinstance(one, GradientCheckpointingLayer)]:
            _part(layer)
        _part(trunk.body)
    for rest in [one for one in module.modules() if _has_whole(one)]:  # heads
        _part(rest)


def is_sharded(module: nn.Module) -> bool:
    """Tell whether a module has parameters in shards."""
    return any(map(in_shards, module.parameters()))


def part_again(module: nn.Module) -> None:
    """Part what a forward pass has put together, so that the next one sees parameters that were changed in place."""
    for trunk in [one for one in module.modules() if isinstance(one, Trunk)]:
        if is_sharded(trunk):
            trunk.body.reshard()  # type: ignore[operator]  # of what it is once it is sharded


def call(module: nn.Module, name: str, function: Callable[[*Given], Found], *given: *Given) -> Found:
    """Call a function that reads the parameters of a module: on all ranks if they are in shards, and here if not.

    Args:
        module: Whose parameters.
        name: By which the others know the function; see `ranks.serve`.
        function: What to call.
        given: Its arguments.
    """
    return ranks.call(name, function, *given) if is_sharded(module) else function(*given)


def gathered(state: Any) -> Any:
    """Return a state with whole tensors, on the processor where they were in shards; all ranks have to ask for it.

    What the other ranks get has no tensors.
    """
    if isinstance(state, Tensor):
        found = whole(state)
        if ranks.number():
            return None
        return found.cpu() if in_shards(state) else found
    if isinstance(state, dict):
        return {key: gathered(one) for key, one in state.items()}
    return type(state)(map(gathered, state)) if type(state) in (list, tuple) else state


def shell_of(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a model whose parameters have no values, for `whole_copy`; one in shards cannot be copied."""
    return _with_parameters(model, [parameter.to("meta") for parameter in model.parameters()])


def whole_copy(model: PreTrainedModel, shell: PreTrainedModel) -> PreTrainedModel | None:
    """Return a copy of a model with whole parameters, on the processor; None on other ranks than the first.

    All ranks have to ask for it.

    Args:
        model: Which is sharded now.
        shell: What `shell_of` returned before it was.
    """
    values = [gathered(parameter.detach()) for parameter in model.parameters()]
    return None if ranks.number() else _with_parameters(shell, values)


def _with_parameters(model: PreTrainedModel, values: Sequence[Tensor]) -> PreTrainedModel:
    copies: dict[int, Any] = {
        id(parameter): nn.Parameter(value.detach(), requires_grad=parameter.requires_grad)
        for parameter, value in zip(model.parameters(), values, strict=True)
    }
    return copy.deepcopy(model, copies)


def _part(module: nn.Module) -> None:
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard  # not on every platform

    mesh = torch.distributed.device_mesh.init_device_mesh(next(module.parameters()).device.type, (ranks.count(),))
    dtype = max((one.dtype for one in module.parameters()), key=lambda dtype: dtype.itemsize)
    wide = MixedPrecisionPolicy(reduce_dtype=torch.promote_types(dtype, torch.float32))
    fully_shard(module, mesh=mesh, mp_policy=wide)
    sharded: Any = module  # as what fully_shard makes of it
    sharded.set_force_sum_reduction_for_comms(True)
    sharded.set_gradient_divide_factor(1.0)


def _has_whole(module: nn.Module) -> bool:
    """Tell whether a module has parameters of its own that are not in shards."""
    return any(not in_shards(one) for one in module.parameters(recurse=False))

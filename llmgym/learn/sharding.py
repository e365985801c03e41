"""`Shards`: a model of which each rank keeps a part of parameters, gradients and optimiser states (FSDP2).

A layer's parameters are put together when the layer runs, and are parted again. What a process reads or writes of
parameters in shards, all ranks have to read or write.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
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


class Shards:
    """A model that may be parted among ranks.

    Args:
        model: Whole.
        wanted: Whether it will be parted, if there are several ranks.
    """

    def __init__(self, model: PreTrainedModel, *, wanted: bool) -> None:
        self._model = model
        self._shell: PreTrainedModel | None = None  # the model without values, once it is parted: FSDP copies none
        self.wanted = wanted and ranks.count() > 1
        """Whether it is parted, or will be."""

    def part(self, loss: nn.Module) -> None:
        """Part the parameters of a loss, which has the model, in place, if that is wanted.

        Gradients will be sums over ranks.
        """
        if self.wanted:
            self._shell = _with_parameters(
                self._model, [parameter.to("meta") for parameter in self._model.parameters()]
            )
            _shard(loss, self._model.device.type)

    def call(self, name: str, function: Callable[[*Given], Found], *given: *Given) -> Found:
        """Call a function that reads parameters: on all ranks if they are in shards, and here if not.

        Args:
            name: By which the others know the function; see `ranks.serve`.
            function: What to call.
            given: Its arguments.
        """
        return function(*given) if self._shell is None else ranks.call(name, function, *given)

    def whole(self) -> PreTrainedModel:
        """Return the model, or a whole copy on the processor if it is in shards; only the first rank asks."""
        if self._shell is None:
            return self._model
        values = ranks.call("parameters", self._parameters)
        return _with_parameters(self._shell, values)

    @property
    def calls(self) -> Mapping[str, Callable[..., Any]]:
        """What the first rank may have all ranks call, by name."""
        return {"parameters": self._parameters}

    def _parameters(self) -> list[Tensor]:
        return [gathered(parameter.detach()) for parameter in self._model.parameters()]


def part_again(module: nn.Module) -> None:
    """Part what a forward pass without a backward pass has left together; if it is not in shards, do nothing."""
    bodies: list[Any] = [one.body for one in module.modules() if isinstance(one, Trunk)]
    for body in bodies:
        if hasattr(body, "reshard"):
            body.reshard()


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


def _with_parameters(model: PreTrainedModel, values: Sequence[Tensor]) -> PreTrainedModel:
    """Return a copy of a model with other values."""
    copies: dict[int, Any] = {
        id(parameter): nn.Parameter(value.detach(), requires_grad=parameter.requires_grad)
        for parameter, value in zip(model.parameters(), values, strict=True)
    }
    return copy.deepcopy(model, copies)


def _shard(module: nn.Module, device: str) -> None:
    """Part models by their layers, and heads beside them."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard  # not on every platform

    mesh = torch.distributed.device_mesh.init_device_mesh(device, (ranks.count(),))
    trunks = [one for one in module.modules() if isinstance(one, Trunk)]
    layers = [one for trunk in trunks for one in trunk.body.modules() if isinstance(one, GradientCheckpointingLayer)]
    heads = [one for one in module.modules() if any(True for _ in one.parameters(recurse=False))]
    for part in [*layers, *(trunk.body for trunk in trunks), *heads]:
        own = [parameter for parameter in part.parameters() if not in_shards(parameter)]
        if own:
            dtype = max((one.dtype for one in own), key=lambda dtype: dtype.itemsize)
            wide = MixedPrecisionPolicy(reduce_dtype=torch.promote_types(dtype, torch.float32))
            sharded: Any = fully_shard(part, mesh=mesh, mp_policy=wide)
            sharded.set_force_sum_reduction_for_comms(True)
            sharded.set_gradient_divide_factor(1.0)

"""`Masters`: float32 copies of narrower weights, for an optimiser to step."""

import contextlib
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn


class Masters:
    """The parameters that an optimiser steps if those of the model may be too narrow for small steps.

    A weight in bfloat16 has 8 bits of precision: a step smaller than a 256th of it would be lost. So
    the optimiser steps a float32 copy, and the model has that rounded (Micikevicius et al. 2018,
    arXiv:1710.03740). Gradients of micro-batches add up in float32, too.

    A parameter that is wide enough is its own master.
    """

    def __init__(self) -> None:
        self._masters: dict[nn.Parameter, nn.Parameter] = {}

    def of(self, parameter: nn.Parameter) -> nn.Parameter:
        """Return the master of a parameter."""
        if parameter.dtype.itemsize >= 4:
            return parameter
        return self._masters.setdefault(parameter, nn.Parameter(parameter.detach().float()))

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Add gradients to the masters as soon as they are computed, within a ``with`` block.

        No more than one narrow gradient exists at a time.
        """
        with contextlib.ExitStack() as hooks:
            for narrow, master in self._masters.items():
                hook = narrow.register_post_accumulate_grad_hook(partial(_move, master))  # type: ignore[no-untyped-call]  # torch does not say
                hooks.callback(hook.remove)
            yield

    @torch.no_grad()
    def round(self) -> None:
        """Set the model's weights to the rounded values of their masters."""
        for narrow, master in self._masters.items():
            narrow.copy_(master)


def _move(master: nn.Parameter, narrow: Tensor) -> None:
    """Add the gradient of a narrow parameter to that of its master."""
    assert narrow.grad is not None
    gradient, narrow.grad = narrow.grad.float(), None
    master.grad = gradient if master.grad is None else master.grad.add_(gradient)

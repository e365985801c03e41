"""Replaces SGLang's GPU kernels: every name is a function that says it is not there."""

from collections.abc import Callable
from typing import Any, NoReturn


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*arguments: Any, **options: Any) -> NoReturn:
        raise NotImplementedError(f"sgl_kernel.{name}: a kernel that needs a GPU was called on a CPU")

    return missing

"""Agents: one file per algorithm, each a class and a command."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmgym.agents.grpo import GRPO

__all__ = ["GRPO"]


def __getattr__(name: str) -> Any:
    # Imported when first asked for, so that `python -m llmgym.agents.grpo` runs that module once.
    if name == "GRPO":
        from llmgym.agents.grpo import GRPO

        return GRPO
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

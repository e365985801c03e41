"""Agents: one file per algorithm, each a class and a command."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmgym.agents.grpo import GRPO
    from llmgym.agents.iterative_dpo import IterativeDPO
    from llmgym.agents.opo import OPO
    from llmgym.agents.ppo import PPO
    from llmgym.agents.spin import SPIN
    from llmgym.agents.sppo import SPPO

__all__ = ["GRPO", "OPO", "PPO", "SPIN", "SPPO", "IterativeDPO"]

_MODULES = {
    "GRPO": "grpo",
    "IterativeDPO": "iterative_dpo",
    "OPO": "opo",
    "PPO": "ppo",
    "SPIN": "spin",
    "SPPO": "sppo",
}


def __getattr__(name: str) -> Any:
    # Imported when first asked for, so that `python -m llmgym.agents.grpo` runs that module once.
    if name in _MODULES:
        return getattr(importlib.import_module(f"llmgym.agents.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

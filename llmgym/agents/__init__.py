"""Agents: one file per algorithm, each a class and a command."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmgym.agents.dpo import DPO
    from llmgym.agents.grpo import GRPO
    from llmgym.agents.ipo import IPO
    from llmgym.agents.iterative_dpo import IterativeDPO
    from llmgym.agents.kl_dpo import KLDPO
    from llmgym.agents.kto import KTO
    from llmgym.agents.opo import OPO
    from llmgym.agents.orpo import ORPO
    from llmgym.agents.ppo import PPO
    from llmgym.agents.reward_mle import RewardMLE
    from llmgym.agents.reward_model import RewardModel
    from llmgym.agents.sft import SFT
    from llmgym.agents.spin import SPIN
    from llmgym.agents.sppo import SPPO

__all__ = [
    "DPO",
    "GRPO",
    "IPO",
    "KLDPO",
    "KTO",
    "OPO",
    "ORPO",
    "PPO",
    "SFT",
    "SPIN",
    "SPPO",
    "IterativeDPO",
    "RewardMLE",
    "RewardModel",
]

_MODULES = {
    "DPO": "dpo",
    "GRPO": "grpo",
    "IPO": "ipo",
    "IterativeDPO": "iterative_dpo",
    "KLDPO": "kl_dpo",
    "KTO": "kto",
    "OPO": "opo",
    "ORPO": "orpo",
    "PPO": "ppo",
    "RewardMLE": "reward_mle",
    "RewardModel": "reward_model",
    "SFT": "sft",
    "SPIN": "spin",
    "SPPO": "sppo",
}


def __getattr__(name: str) -> Any:
    # Imported when first asked for, so that `python -m llmgym.agents.grpo` runs that module once.
    if name in _MODULES:
        return getattr(importlib.import_module(f"llmgym.agents.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

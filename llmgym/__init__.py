"""llmgym: Gymnasium-style environments and rollouts for training language models to act over several turns.

Importing llmgym registers its environments with Gymnasium and imports no torch; what
learns is in `llmgym.agents`.
"""

from pathlib import Path

from llmgym.calls import ToolCall, calling
from llmgym.config.presets import register_model
from llmgym.envs.checker import check_env
from llmgym.envs.text_env import TextEnv
from llmgym.envs.tools import Tool
from llmgym.envs.vector import TextVectorEnv
from llmgym.errors import LLMGymError
from llmgym.registry import register_adapters, register_entry_point, register_env, registered_envs, resolve_env
from llmgym.scorers import (
    FunctionScorer,
    PairwiseScorer,
    Scorer,
    register_pairwise_scorer,
    register_scorer,
    register_scorer_class,
)
from llmgym.spaces import UnicodeText
from llmgym.types import Episode, Message, Outcome, Score, Turn
from llmgym.version import __version__

__all__ = [
    "Episode",
    "FunctionScorer",
    "LLMGymError",
    "Message",
    "Outcome",
    "PairwiseScorer",
    "Score",
    "Scorer",
    "TextEnv",
    "TextVectorEnv",
    "Tool",
    "ToolCall",
    "Turn",
    "UnicodeText",
    "__version__",
    "calling",
    "check_env",
    "register_env",
    "register_pairwise_scorer",
    "register_scorer",
    "register_scorer_class",
    "registered_envs",
    "resolve_env",
]

register_entry_point("llmgym/AIOpsTriage-v0", "llmgym.envs.aiops:AIOpsTriage")
register_adapters()
register_model("tiny", Path(__file__).parent / "demo" / "tiny.yaml")
register_scorer_class("reward_model", "llmgym.learn.reward_model:RewardModelScorer")

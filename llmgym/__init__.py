"""llmgym: Gymnasium-style environments and rollouts for training language models to act over several turns.

Importing llmgym registers its environments with Gymnasium and imports no torch; what
learns is in `llmgym.agents`. The names in the stub beside this file are imported when first asked for.
"""

from pathlib import Path

import lazy_loader

from llmgym import calls as calls
from llmgym import scorers as scorers
from llmgym import spaces as spaces
from llmgym import types as types
from llmgym.config.presets import register_model
from llmgym.registry import register_adapters, register_entry_point

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

register_entry_point("llmgym/AIOpsTriage-v0", "llmgym.envs.aiops:AIOpsTriage")
register_entry_point("llmgym/AIOpsInvestigation-v0", "llmgym.envs.aiops:AIOpsInvestigation")
register_entry_point("llmgym/qa-v0", "llmgym.envs.tasks:TaskEnv")
register_entry_point("llmgym/Countdown-v0", "llmgym.envs.arithmetic:Countdown")
register_entry_point("llmgym/Sums-v0", "llmgym.envs.arithmetic:Sums")
register_entry_point("llmgym/Instructions-v0", "llmgym.envs.instructions:Instructions")
register_entry_point("llmgym/CodeWord-v0", "llmgym.envs.codeword:CodeWord")
register_entry_point("llmgym/GridWorld-v0", "llmgym.envs.gridworld:GridWorld")
register_entry_point("llmgym/SQL-v0", "llmgym.envs.sql:SQL")
register_entry_point("llmgym/Orders-v0", "llmgym.envs.orders:Orders")
register_entry_point("llmgym/Search-v0", "llmgym.envs.search:Search")
register_entry_point("llmgym/Code-v0", "llmgym.envs.code:Code")
register_entry_point("llmgym/KuhnPoker-v0", "llmgym.envs.games:KuhnPoker")
register_entry_point("llmgym/TicTacToe-v0", "llmgym.envs.games:TicTacToe")
register_entry_point("llmgym/Negotiation-v0", "llmgym.envs.games:Negotiation")
register_entry_point("llmgym/House-v0", "llmgym.envs.house:House")
register_adapters()
register_model("tiny", Path(__file__).parent / "demo" / "tiny.yaml")
register_model("tiny-tools", Path(__file__).parent / "demo" / "tiny_tools.yaml")

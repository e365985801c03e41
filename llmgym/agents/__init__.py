"""Agents: one file per algorithm, each a class and a command.

Each is imported when first asked for, so that ``python -m llmgym.agents.grpo`` runs that module once.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

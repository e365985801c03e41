"""llmgym's embedded engine."""

from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.sides.rollout import rollout
from benchmarks.work import Work
from llmgym.engines.local.engine import LocalEngine
from llmgym.models.causal_lm import load_causal_lm


def load(model: str, dtype: str) -> Callable[[Work], list[list[list[int]]]]:
    """Return the engine's rollout."""
    engine = LocalEngine(load_causal_lm(Path(model), getattr(torch, dtype))[0])
    return lambda work: rollout(engine, work)

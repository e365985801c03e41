"""TRL's `GRPOTrainer` without gradient checkpointing, which it has on by default."""

from collections.abc import Callable

from benchmarks.updates import trl_grpo
from benchmarks.updates.episodes import Episodes, Step


def load(model: str, dtype: str) -> Callable[[Episodes], Step]:
    """Return the update."""
    return trl_grpo.load(model, dtype, gradient_checkpointing=False)

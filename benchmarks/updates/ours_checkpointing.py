"""llmgym with gradient checkpointing, which TRL has on by default and llmgym off."""

from collections.abc import Callable

from benchmarks.updates import ours
from benchmarks.updates.episodes import Episodes, Step


def load(model: str, dtype: str) -> Callable[[Episodes], Step]:
    """Return the update."""
    return ours.load(model, dtype, gradient_checkpointing=True)

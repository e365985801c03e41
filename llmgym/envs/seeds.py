"""Which seeds belong to training: evaluation counts from 0, and the two never meet."""

import numpy as np

FIRST_TRAINING_SEED = 1_000_000


def training_seeds(rng: np.random.Generator, count: int) -> list[int]:
    """Draw the seeds of training tasks."""
    return [int(seed) for seed in rng.integers(FIRST_TRAINING_SEED, 2**31, count)]

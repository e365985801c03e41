"""Which seeds belong to training: evaluation counts from 0, and the two never meet."""

from collections.abc import Iterator

import numpy as np

FIRST_TRAINING_SEED = 1_000_000


def training_seeds(rng: np.random.Generator) -> Iterator[int]:
    """Yield seeds for training without end."""
    while True:
        yield int(rng.integers(FIRST_TRAINING_SEED, 2**31))

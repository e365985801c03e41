"""Which tasks belong to training and which to evaluation: told by their seeds, and by their content.

Evaluation counts its seeds from 0, and training draws from those that it never reaches. Where two
seeds give the same task, its content decides, so that no task is in both.
"""

import zlib
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeVar, get_args

import numpy as np

from llmgym.errors import ConfigError

Split = Literal["train", "eval"]

EVAL_SHARE = 5  # one task in so many belongs to the evaluation split
FIRST_TRAINING_SEED = 1_000_000


def training_seeds(rng: np.random.Generator, count: int) -> list[int]:
    """Draw the seeds of training tasks."""
    return [int(seed) for seed in rng.integers(FIRST_TRAINING_SEED, 2**31, count)]


class HasContent(Protocol):
    """A task that knows what it consists of."""

    @property
    def content(self) -> str:
        """What the task consists of, the same for every task that is solved alike."""
        ...


Drawn = TypeVar("Drawn", bound=HasContent)


def split_of(content: str) -> Split:
    """Return the split that a task of this content belongs to.

    Examples:
        >>> split_of("crane"), split_of("zebra")
        ('train', 'train')
    """
    return "eval" if zlib.crc32(content.encode()) % EVAL_SHARE == 0 else "train"


def draw_in_split(draw: Callable[[np.random.Generator], Drawn], rng: np.random.Generator, split: Split) -> Drawn:
    """Draw tasks until one belongs to the split."""
    while True:
        task = draw(rng)
        if split_of(task.content) == split:
            return task


def check_difficulty_and_split(difficulty: Any, difficulties: int, split: Any) -> None:
    """Refuse a difficulty or a split that there is not.

    Raises:
        ConfigError: The difficulty is no integer from 0 on below `difficulties`, or the split is unknown.
    """
    one_of("difficulty", difficulty, range(difficulties))
    one_of("split", split, get_args(Split))


def one_of(name: str, value: Any, allowed: Any) -> None:
    """Refuse an argument that is none of those allowed; True is not 1.

    Raises:
        ConfigError: It is none of them.
    """
    if not any(value == one and type(value) is type(one) for one in allowed):
        raise ConfigError(f"{name} has to be one of {', '.join(map(repr, allowed))}, got {value!r:.80}.")

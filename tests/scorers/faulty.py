"""Reward functions that go wrong on the episode whose task is "bad", each in a way of its own."""

import re
import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import torch
from faulty_calls import DISTURBS, ENDS, HANGS, RAISES, interrupts

import llmgym
from llmgym import Episode, Score


def right(episode: Episode) -> float:
    """Score an episode that does no harm."""
    return float(len(episode.actions[-1]))


RETURNS: dict[str, Any] = {
    "NaN": float("nan"),
    "inf": float("inf"),
    "None": None,
    "a string": "0.5",
    "bytes": b"1",
    "complex": 1j,
    "a huge integer": 10**400,
    "a list": [1.0],
    "an array": np.array([1.0, 2.0]),
    "a tensor": torch.tensor([1.0, 2.0]),
    "nested": {"a": {"b": 1.0}},
    "a part that is NaN": {"a": float("nan")},
    "a score that is NaN": Score(float("nan")),
    "rewards of other turns": Score(1.0, rewards=[0.5, 0.25, 0.25]),
    "an object": object(),
    "a generator": (one for one in ()),
    "a decimal that is no number": Decimal("NaN"),
}


def faults(episode: Episode) -> Any:
    """Score an episode; one whose task names a fault commits it."""
    fault = episode.task["fault"]
    if fault in RETURNS:
        return RETURNS[fault]
    known = HANGS | ENDS | RAISES | DISTURBS | {"interrupts": interrupts}
    return known[fault]() if fault else right(episode)


def meddles(episode: Episode) -> float:
    """Score an episode and change all that can be changed of it."""
    value = float(len(episode.turns) + len(episode.task["rows"]) + len(episode.task))
    episode.task["rows"].append(0)
    episode.task.clear()
    episode.turns.clear()
    return value


class Length:
    """A scorer with an option, which asks for nothing but itself."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale, self.word = scale, re.compile(r"\w+")

    def score(self, episodes: list[Episode]) -> Any:
        """Return an array, as NumPy's users do."""
        return np.array([self.scale * len(self.word.findall(episode.actions[-1])) for episode in episodes])


@llmgym.register_pairwise_scorer("longer-unless-bad")
def longer(first: Episode, second: Episode) -> float:
    """Compare two episodes; a pair with a fault commits it."""
    faults(first)
    faults(second)
    return float(len(first.actions[-1]) > len(second.actions[-1]))


class Closing:
    """A scorer that cannot be sent."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def score(self, episodes: list[Episode]) -> Iterator[float]:
        """Not reached."""
        raise NotImplementedError

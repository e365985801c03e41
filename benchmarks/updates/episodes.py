"""What every side of the update benchmark is given, in nothing but the standard library."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Episodes:
    """The episodes of one update, as tokens; siblings are adjacent.

    Attributes:
        name: What a table calls them.
        prompts: The tokens before the first reply, by episode.
        rests: What follows: replies and, between them, what the environment said.
        masks: 1 where a token of the rest was sampled.
        log_probs: Of the rest's tokens under the sampling policy; 0 where not sampled.
        advantages: One per episode.
    """

    name: str
    prompts: list[list[int]]
    rests: list[list[int]]
    masks: list[list[int]]
    log_probs: list[list[float]]
    advantages: list[float]

    @property
    def sampled(self) -> int:
        """Sampled tokens."""
        return sum(map(sum, self.masks))

    def to_json(self) -> str:
        """Return the episodes as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Episodes:
        """Read what `to_json` wrote."""
        return cls(**json.loads(line))


@dataclass(frozen=True)
class Step:
    """What a side says of an optimiser step.

    Attributes:
        loss: The value of the loss.
        grad_norm: Length of the gradient, before clipping.
        seconds: From lists of tokens to new weights.
    """

    loss: float
    grad_norm: float
    seconds: float = 0.0

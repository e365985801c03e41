"""What every side of the rollout benchmark is given, in nothing but the standard library.

The peers run in environments of their own, so a work crosses to them as JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Work:
    """Episodes to sample, as tokens.

    Attributes:
        name: What a table calls it.
        prompts: The first prompt of every episode; siblings have equal ones.
        bridge: The tokens between a reply and the next one.
        lengths: How many tokens every reply has, by episode and turn; no token ends one earlier.
        seed: Start of the random numbers.
    """

    name: str
    prompts: list[list[int]]
    bridge: list[int]
    lengths: list[list[int]]
    seed: int

    @property
    def turns(self) -> int:
        """Replies of an episode."""
        return len(self.lengths[0])

    @property
    def sampled(self) -> int:
        """Tokens to sample."""
        return sum(map(sum, self.lengths))

    def to_json(self) -> str:
        """Return the work as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Work:
        """Read what `to_json` wrote."""
        return cls(**json.loads(line))


@dataclass(frozen=True)
class Answer:
    """What a side says when it has done a work.

    Attributes:
        seconds: From the first prompt to the last token.
        lengths: Tokens that it sampled, by episode and turn.
        distinct_tokens: How many different ones.
    """

    seconds: float
    lengths: list[list[int]]
    distinct_tokens: int

    def to_json(self) -> str:
        """Return the answer as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Answer:
        """Read what `to_json` wrote."""
        return cls(**json.loads(line))

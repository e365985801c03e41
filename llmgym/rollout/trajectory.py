"""`Trajectory`: one episode as the tokens it was made of. It only ever grows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from llmgym.rollout.engines.base import Completion, FinishReason
from llmgym.types import Message

Ending = Literal["terminated", "truncated", "context", "max_tokens"]
"""How an episode ended: by itself, cut off by its environment, for want of room in the context, or
because it had sampled all the tokens that an episode may."""


@dataclass(slots=True)
class Reply:
    """One reply of the agent within a trajectory.

    Attributes:
        start: Index of its first token.
        stop: Index behind its last token.
        finish_reason: Why sampling stopped.
        weight_version: The weights that sampled it.
        reward: What the environment gave for it.
    """

    start: int
    stop: int
    finish_reason: FinishReason
    weight_version: int
    reward: float = 0.0


@dataclass(slots=True)
class Trajectory:
    """One episode: its tokens, which of them were sampled, and with which log-probability.

    `tokens`, `mask` and `log_probs` have equal length; `sum(mask)` is the number of sampled
    tokens, stop tokens included. Messages are a view for people; tokens are the record.

    Attributes:
        seed: The seed its environment was reset with.
        group: Trajectories of one group answer the same task.
        tokens: Everything said, in order.  [T]
        mask: True where the agent sampled the token.  [T]
        log_probs: Log-probability under the sampling distribution; 0 where not sampled.  [T]
        replies: The agent's turns, oldest first.
        messages: The conversation as text.
        parts: The named parts of the score.
        score: The total reward, or None if it is missing.
        ending: How the episode ended; None while it goes on.
    """

    seed: int
    group: int
    tokens: list[int] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)
    score: float | None = None
    ending: Ending | None = None

    def observe(self, tokens: Sequence[int]) -> None:
        """Append what the environment said, and the template around it."""
        self.tokens.extend(tokens)
        self.mask.extend([False] * len(tokens))
        self.log_probs.extend([0.0] * len(tokens))

    def act(self, completion: Completion) -> None:
        """Append what the agent sampled."""
        start = len(self.tokens)
        self.tokens.extend(completion.tokens)
        self.mask.extend([True] * len(completion.tokens))
        self.log_probs.extend(completion.log_probs)
        self.replies.append(Reply(start, len(self.tokens), completion.finish_reason, completion.weight_version))

    @property
    def sampled_tokens(self) -> int:
        """How many tokens the agent sampled."""
        return sum(self.mask)

    @property
    def prompt_length(self) -> int:
        """How many tokens stand before the first reply."""
        return self.replies[0].start if self.replies else len(self.tokens)

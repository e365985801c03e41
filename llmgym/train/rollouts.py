"""`Rollouts`: the protocol of what plays episodes with the newest weights, in this process or in others."""

from collections.abc import Sequence
from typing import Protocol

from llmgym.engines.base import Completion, GenerationRequest
from llmgym.envs.vector import TextVectorEnv
from llmgym.rollout.player import Player
from llmgym.scorers import AnyScorer


class Rollouts(Protocol):
    """One engine or several, and the players that they sample for."""

    def player(
        self, envs: TextVectorEnv, scorer: AnyScorer | None, *, split: str | None = None, needs_scores: bool = True
    ) -> Player:
        """Return what plays the environments of a split with the policy."""
        ...

    @property
    def plays_here(self) -> bool:
        """Whether environments of this process are played."""
        ...

    def require_training(self, *, log_probs: bool) -> None:
        """Refuse engines that take no weights, or whose replies cannot be learnt from.

        Args:
            log_probs: Whether replies are learnt from, which takes their log-probabilities.

        Raises:
            ConfigError: They do not.
        """
        ...

    def load_weights(self, version: int) -> None:
        """Sample with the weights that the model has now; nothing may be under way."""
        ...

    def probe(self, requests: Sequence[GenerationRequest]) -> list[list[Completion]]:
        """Return what each engine that counts log-probabilities replies, in the order of the requests.

        Args:
            requests: Each of an episode of its own.
        """
        ...

    @property
    def lends_memory(self) -> bool:
        """Whether `lend_memory` makes room on the learner's accelerator."""
        ...

    def lend_memory(self) -> None:
        """Give the learner's accelerator as much memory as can be, until weights are loaded."""
        ...

    def abandon(self) -> None:
        """Stop what is played ahead, if anything."""
        ...

    def close(self) -> None:
        """Give back what engines hold."""
        ...

"""`NoRollouts`: the rollouts of a rank that only learns; the first rank plays."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from llmgym.config.sections import Sampling
from llmgym.engines.base import Completion, GenerationRequest
from llmgym.envs.vector import TextVectorEnv
from llmgym.errors import ConfigError
from llmgym.rollout.task import Task
from llmgym.rollout.trajectory import Trajectory
from llmgym.scorers import AnyScorer


class NoRollouts:
    """No engine, and a player that refuses to play.

    Args:
        weights: What the first rank hands over, where parameters are in shards.
    """

    lends_memory = plays_here = False

    def __init__(self, weights: Callable[[], Iterable[object]]) -> None:
        self._weights = weights

    def player(
        self, envs: TextVectorEnv, scorer: AnyScorer | None, *, split: str | None = None, needs_scores: bool = True
    ) -> "NoPlayer":
        """Return a player that refuses to play."""
        return NoPlayer()

    def require_training(self, *, log_probs: bool) -> None:
        """Refuse nothing: the first rank looks at its engine."""

    def load_weights(self, version: int) -> None:
        """Take part in putting weights together that the first rank hands over."""
        for _ in self._weights():
            pass

    def probe(self, requests: Sequence[GenerationRequest]) -> list[list[Completion]]:
        """Return nothing."""
        return []

    def lend_memory(self) -> None:
        """Do nothing."""

    def abandon(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class NoPlayer:
    """Refuses to play; see `Player`."""

    def collect(self, tasks: Sequence[Task], sampling: Sampling, seed: int = 0) -> list[Trajectory]:
        """Refuse.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError("A rank that only learns cannot play or evaluate: expected the first rank to be asked.")

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""

"""`StoredRollouts`: the episodes that another run played, step by step, in place of playing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmgym.config.sections import Sampling
from llmgym.data.trajectories import read_trajectories
from llmgym.engines.base import Completion, GenerationRequest
from llmgym.envs.vector import TextVectorEnv
from llmgym.errors import ConfigError, DataError, RunDirectoryError
from llmgym.rollout.task import Task
from llmgym.rollout.trajectory import Trajectory
from llmgym.scorers import AnyScorer
from llmgym.train.actor import Actor


class StoredRollouts:
    """No engine, and a player that returns what is stored.

    Args:
        run: The directory of the run whose episodes are learnt from.
        actor: Whose policy learns.

    Raises:
        RunDirectoryError: It has no episodes.
        ConfigError: It has fewer steps than are asked for.
    """

    lends_memory = plays_here = False

    def __init__(self, run: Path, actor: Actor) -> None:
        self._actor = actor
        self._files = sorted(run.expanduser().glob("trajectories/step-*.parquet"))
        if not self._files:
            raise RunDirectoryError(f"rollouts_from: {str(run)!r} has no episodes; expected a run that played some.")
        if actor.config.run.steps > len(self._files):
            raise ConfigError(
                f"rollouts_from: {str(run)!r} has the episodes of {len(self._files)} steps; expected at most as many "
                f"steps, got {actor.config.run.steps}."
            )

    def player(
        self, envs: TextVectorEnv, scorer: AnyScorer | None, *, split: str | None = None, needs_scores: bool = True
    ) -> "StoredPlayer":
        """Return what gives the episodes of one step after the other."""
        if split is not None:
            raise ConfigError("rollouts_from: nothing is played; expected no evaluation.")
        return StoredPlayer(self._files, self._actor.model.config.get_text_config().vocab_size)

    def require_training(self, *, log_probs: bool) -> None:
        """Refuse nothing: what is stored has its log-probabilities."""

    def load_weights(self, version: int) -> None:
        """Do nothing: nobody samples."""

    def probe(self, requests: Sequence[GenerationRequest]) -> list[list[Completion]]:
        """Return nothing."""
        return []

    def lend_memory(self) -> None:
        """Do nothing."""

    def abandon(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class StoredPlayer:
    """Gives the episodes of one file after the other; see `Player`.

    Args:
        files: Of the steps of a run, in order.
        vocabulary: Tokens that the model knows.
    """

    def __init__(self, files: Sequence[Path], vocabulary: int) -> None:
        self._files, self._vocabulary, self._given = files, vocabulary, 0

    def collect(self, tasks: Sequence[Task], sampling: Sampling, seed: int = 0) -> list[Trajectory]:
        """Return the next step's episodes; what they should be about does not matter.

        Raises:
            ConfigError: There are no more.
            DataError: They are not what this run can learn from.
        """
        if self._given == len(self._files):
            raise ConfigError(f"rollouts_from: there are the episodes of {len(self._files)} steps, and all were given.")
        file = self._files[self._given]
        self._given += 1
        episodes = read_trajectories(file)
        if len(episodes) != len(tasks):
            raise DataError(
                f"{str(file)!r}: expected {len(tasks)} episodes, as prompts_per_step and group_size say, got "
                f"{len(episodes)}."
            )
        largest = max((max(one.tokens, default=0) for one in episodes), default=0)
        if largest >= self._vocabulary or not any(one.tokens for one in episodes):
            raise DataError(
                f"{str(file)!r}: expected the tokens of a model with {self._vocabulary}, got "
                f"{'none' if not largest else f'token {largest}'}; name the model that played them."
            )
        return episodes

    def state_dict(self) -> dict[str, Any]:
        """Return how many steps were given."""
        return {"given": self._given}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._given = state["given"]

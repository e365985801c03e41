"""The protocol of whatever plays the episodes of a run."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from llmgym.config.sections import Sampling
from llmgym.rollout.task import Task
from llmgym.rollout.trajectory import Trajectory


class Player(Protocol):
    """Plays episodes with the newest weights: in this process (`Collector`), or in others."""

    def collect(self, tasks: Sequence[Task], sampling: Sampling, seed: int = 0) -> list[Trajectory]:
        """Play one episode per task; see `Collector.collect`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return how much went wrong so far."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from what `state_dict` returned."""
        ...

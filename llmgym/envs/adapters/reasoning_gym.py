"""Reasoning Gym's data sets as environments of one turn: a question, an answer, and the package's own score of it."""

from typing import Any

from llmgym.envs.adapters import import_extra
from llmgym.envs.text_env import TextEnv
from llmgym.scorers.pointwise import ScoreLike
from llmgym.types import Episode

reasoning_gym: Any = import_extra("reasoning_gym", extra="reasoning-gym")


def make(task: str, *, render_mode: str | None = None, scorer: Any = None, **config: Any) -> "ReasoningGym":
    """Make an environment of one data set.

    Args:
        task: The name of the data set.
        render_mode: As for every `TextEnv`.
        scorer: As for every `TextEnv`.
        config: What the data set's own configuration has, such as ``min_terms``.
    """
    return ReasoningGym(task, config, render_mode=render_mode, scorer=scorer)


class ReasoningGym(TextEnv):
    """Answer one question of a Reasoning Gym data set."""

    def __init__(self, name: str, config: dict[str, Any], **options: Any) -> None:
        super().__init__(**options)
        self._name = name
        self._config = config

    def begin(self) -> str:
        """Draw a question."""
        seed = int(self.np_random.integers(2**31))
        self._data = reasoning_gym.create_dataset(self._name, seed=seed, size=1, **self._config)
        self._entry = self._data[0]
        return str(self._entry["question"])

    def score(self, episode: Episode) -> ScoreLike:
        """Return the data set's own score."""
        return float(self._data.score_answer(episode.turns[-1].action, self._entry))

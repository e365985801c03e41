"""The environment: a data set's question, and one reply."""

import json
from collections.abc import Iterator
from typing import Any

from llmgym.envs.adapters.apart import apart
from llmgym.envs.adapters.reasoning_gym import data_sets
from llmgym.envs.adapters.reasoning_gym.data_sets import APART, WITHOUT_ORACLE, Question
from llmgym.envs.text_env import TextEnv
from llmgym.scorers.pointwise import ScoreFunction, Scorer
from llmgym.types import Episode, Score

_ASKING, _SCORING = 120.0, 10.0  # seconds that a process apart has


def make(
    task: str,
    *,
    render_mode: str | None = None,
    scorer: Scorer | ScoreFunction | str | None = None,
    **config: Any,
) -> "ReasoningGym":
    """Answer questions of one of Reasoning Gym's data sets.

    Args:
        task: The name of the data set, such as ``"chain_sum"``.
        render_mode: As of every `TextEnv`.
        scorer: As of every `TextEnv`.
        config: Fields of the data set's own configuration, such as ``min_terms``.

    Raises:
        UnknownNameError: There is no such data set.
        ConfigError: The data set is refused, or its configuration is.
    """
    data_sets.check(task, config)
    kind = ReasoningGym if task in WITHOUT_ORACLE else ReasoningGymWithOracle
    return kind(task, config, render_mode=render_mode, scorer=scorer)


class ReasoningGym(TextEnv):
    """A question of a data set, and its score of the answer, unchanged.

    The question's number is drawn from all numbers of 31 bits: data sets with seeds near each other share most
    questions.

    Args:
        name: The data set.
        config: Its configuration.
        render_mode: As of every `TextEnv`.
        scorer: As of every `TextEnv`.
    """

    system_prompt = "Give your final answer between <answer> and </answer>."

    def __init__(
        self,
        name: str,
        config: dict[str, Any],
        *,
        render_mode: str | None = None,
        scorer: Scorer | ScoreFunction | str | None = None,
    ) -> None:
        super().__init__(render_mode=render_mode, scorer=scorer)
        self._name = name
        self._config = json.dumps(config, sort_keys=True)
        self._apart = apart(data_sets.__name__) if name in APART else None
        self.blocking = self.blocking or self._apart is not None

    def begin(self) -> str:
        """Ask."""
        self._number = int(self.np_random.integers(2**31))
        self.question = self._ask()
        self.episode.task = self.question.oracle
        return self.question.text

    def score(self, episode: Episode) -> Score:
        """Return the data set's own score; the part ``unreadable`` says that its scorer could make nothing of it."""
        reply = episode.turns[-1].action
        try:
            value, readable = self._score(reply)
        except TimeoutError as error:
            return Score(None, error=str(error))
        return Score(value, {"unreadable": float(not readable)})

    def _ask(self) -> Question:
        key = self._name, self._config, self._number
        if self._apart is None:
            return data_sets.ask(*key)
        return Question(*self._apart.call("ask", *key, limit=_ASKING))

    def _score(self, reply: str) -> tuple[float, bool]:
        key = self._name, self._config, self._number
        if self._apart is None:
            return data_sets.score(*key, reply)
        value, readable = self._apart.call("score", *key, reply, limit=_SCORING)
        return value, readable


class ReasoningGymWithOracle(ReasoningGym):
    """A question whose answer the data set tells."""

    def expert(self) -> Iterator[str]:
        """Say the data set's own answer."""
        yield f"<answer>{self.question.oracle}</answer>"

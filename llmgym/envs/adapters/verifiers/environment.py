"""The environment: a task of a taskset, and the conversation that the taskset's own environment holds about it."""

import json
from collections.abc import Mapping
from typing import Any

from llmgym.data.conversations import as_messages
from llmgym.envs.adapters.verifiers.process import Episode as Play
from llmgym.envs.adapters.verifiers.process import Process, process
from llmgym.envs.splits import Split, one_of
from llmgym.envs.text_env import TextEnv
from llmgym.errors import ConfigError
from llmgym.scorers.pointwise import ScoreFunction, Scorer
from llmgym.types import Episode, Message, Outcome, Score, well_formed


def make(
    task: str,
    *,
    split: Split = "train",
    max_turns: int | None = None,
    timeout: float = 120.0,
    config: Mapping[str, Any] | None = None,
    render_mode: str | None = None,
    scorer: Scorer | ScoreFunction | str | None = None,
    **fields: Any,
) -> "Verifiers":
    """Play the tasks of one of verifiers' tasksets.

    Args:
        task: The taskset's id, as verifiers has it: the name of an installed package, or of a module of one's own.
        split: Which of its tasks: a fifth of them, chosen by what they say, is held out.
        max_turns: Replies after which an unfinished episode is truncated; None for no limit but the taskset's own.
        timeout: Seconds that its code may take between two replies, and for the score.
        config: Fields of the taskset's configuration that have the name of an argument here, such as its own ``split``.
        render_mode: As of every `TextEnv`.
        scorer: As of every `TextEnv`.
        fields: All other fields of the taskset's configuration.

    Raises:
        UnknownNameError: There is no such taskset.
        ConfigError: The taskset is refused, or its configuration is, or it has no tasks of this split.
    """
    one_of("split", split, ("train", "eval"))
    given = json.dumps({**fields, **(config or {})}, sort_keys=True)
    env = Verifiers(task, given, split, timeout, render_mode=render_mode, scorer=scorer)
    env.max_turns = max_turns
    if not env.tasks:
        raise ConfigError(f"split: verifiers:{task} has no task of the split {split!r}; expected a taskset of more.")
    return env


class Verifiers(TextEnv):
    """A task of a taskset; the reward is the taskset's own, and a missing one where a signal failed.

    Args:
        name: The taskset.
        config: Its configuration, as JSON.
        split: Which of its tasks.
        timeout: Seconds that its code may take.
        render_mode: As of every `TextEnv`.
        scorer: As of every `TextEnv`.
    """

    blocking = True

    def __init__(
        self,
        name: str,
        config: str,
        split: Split,
        timeout: float,
        *,
        render_mode: str | None = None,
        scorer: Scorer | ScoreFunction | str | None = None,
    ) -> None:
        super().__init__(render_mode=render_mode, scorer=scorer)
        self._name, self._config, self._timeout = name, config, timeout
        self._process: Process | None = process(name, config)
        self.tasks = self._process.splits[split]
        """The numbers of the tasks, in the order of the taskset."""
        self._play: Play | None = None

    def begin(self) -> tuple[Message, ...]:
        """Draw a task, and say what its environment says first."""
        self.release_episode()
        self._process = process(self._name, self._config)
        number = self.tasks[int(self.np_random.integers(len(self.tasks)))]
        self._play = self._process.begin(number, seed=int(self.np_random.integers(2**31)))
        self._over: dict[str, Any] | None = None
        self.episode.task = self._play.news(self._timeout)["task"]
        return self._next()

    def respond(self, action: str) -> Outcome:
        """Hand over the reply, and say what the environment answers."""
        assert self._play is not None, "begin comes before"
        self._play.reply(well_formed(action))
        said = self._next()
        if self._over is None:
            return Outcome(said)
        return Outcome(over=not self._over["truncated"], truncated=self._over["truncated"])

    def score(self, episode: Episode) -> Score:
        """Return the taskset's own score; an episode that was cut off ends first, as by its limit of turns."""
        if self._over is None:
            assert self._play is not None, "begin comes before"
            self._play.reply(None)
            self._next()
        assert self._over is not None, "no reply is left"
        if self._over["error"] is not None:
            return Score(None, error=self._over["error"])
        return Score(self._over["value"], self._over["parts"])

    def release_episode(self) -> None:
        """End what the taskset holds of the episode."""
        if self._play is not None:
            self._play.end()
            self._play = None
        super().release_episode()

    def close(self) -> None:
        """Leave the process, which ends with the last environment of the taskset."""
        self.release_episode()
        self._process = None
        super().close()

    def _next(self) -> tuple[Message, ...]:
        """Return what is said next; at the end nothing is, and `_over` says how it ended."""
        assert self._play is not None, "begin comes before"
        news = self._play.news(self._timeout)
        self._over = news.get("over")
        return as_messages(news["said"], "user", f"verifiers:{self._name}") if self._over is None else ()

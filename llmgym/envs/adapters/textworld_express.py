"""TextWorldExpress's games as environments, each in a Java process of its own: games in one process disturb others."""

import json
import shutil
from collections.abc import Iterator
from typing import Any

from llmgym.envs.text_env import TextEnv
from llmgym.errors import ConfigError, UnknownNameError, did_you_mean, import_extra
from llmgym.scorers.pointwise import ScoreFunction, Scorer
from llmgym.types import Episode, Outcome, Score

_package: Any = import_extra("textworld_express", extra="textworld-express")

_FOLDS = {"train": "Train", "eval": "Dev", "test": "Test"}
_RANDOM_EXPERTS = frozenset(["coin", "twc"])
"""Games whose way to win is another one each time, even on the same seed."""


def make(
    task: str,
    *,
    split: str = "train",
    commands: bool = True,
    max_turns: int = 200,
    render_mode: str | None = None,
    scorer: Scorer | ScoreFunction | str | None = None,
    **parameters: int | str,
) -> "TextWorldExpress":
    """Play one of TextWorldExpress's games.

    Args:
        task: The game, such as ``"cookingworld"``.
        split: Which of the package's worlds: ``"train"``, ``"eval"`` (its dev fold) or ``"test"``.
        commands: Whether observations list the commands that the game would take.
        max_turns: Replies after which an unfinished game is truncated; the shortest known way to win may take 109.
        render_mode: As of every `TextEnv`.
        scorer: As of every `TextEnv`.
        parameters: The game's own, such as ``numLocations``.

    Raises:
        UnknownNameError: There is no such game.
        ConfigError: There is no Java, or the game refuses its parameters.
    """
    if shutil.which("java") is None:
        raise ConfigError("textworld_express needs Java, and there is no program called java: install a Java runtime.")
    package = _package.TextWorldExpressEnv()
    server = package.server
    games = list(server.getGameNames())
    if task not in games:
        raise UnknownNameError(
            f"TextWorldExpress has no game {task!r}.{did_you_mean(task, games)} Games: {', '.join(games)}."
        )
    if split not in _FOLDS:
        raise ConfigError(f"split: expected one of {', '.join(_FOLDS)}, got {split!r}.{did_you_mean(split, _FOLDS)}")
    complaint = server.load(task, ",".join(f"{name}={value}" for name, value in parameters.items()))
    if complaint:
        raise ConfigError(f"textworld_express:{task} refuses {parameters}: {complaint}")
    kind = TextWorldExpress if task in _RANDOM_EXPERTS else _WithGoldPath
    env = kind(package, split, commands, render_mode=render_mode, scorer=scorer)
    env.max_turns = max_turns
    return env


class TextWorldExpress(TextEnv):
    """A text game; the last line of a reply is the command, and the score at the end is the reward.

    Args:
        package: The package's own environment, with the game loaded.
        split: Which worlds.
        commands: Whether observations list the commands that the game would take.
        render_mode: As of every `TextEnv`.
        scorer: As of every `TextEnv`.
    """

    def __init__(
        self,
        package: Any,
        split: str,
        commands: bool,
        *,
        render_mode: str | None = None,
        scorer: Scorer | ScoreFunction | str | None = None,
    ) -> None:
        super().__init__(render_mode=render_mode, scorer=scorer)
        self.package, self.server = package, package.server
        self._commands = commands
        self._fold = _FOLDS[split]
        self._seeds = list(getattr(self.server, f"getSeeds{self._fold}")())

    def begin(self) -> str:
        """Draw a world and describe the task."""
        seed = self._seeds[int(self.np_random.integers(len(self._seeds)))]
        self._state = json.loads(self.server.generateNewGameJSON(seed, self._fold.lower(), True))
        return f"{self.server.getTaskDescription()}\n\n{self._seen()}"

    def respond(self, action: str) -> str | Outcome:
        """Run the command."""
        command = action.strip().rpartition("\n")[2].strip().encode(errors="replace").decode()
        self._state = json.loads(self.server.stepJSON(command))
        state = self._state
        if state["score"] >= 1 or state["tasksuccess"] or state["taskfailure"]:
            return Outcome(state["observation"], over=True)
        return self._seen()

    def score(self, episode: Episode) -> Score:
        """Return the game's own score so far, from 0 to 1."""
        return Score(max(0.0, float(self._state["score"])), {"success": float(self._state["tasksuccess"])})

    def close(self) -> None:
        """End the Java process."""
        self.package.close()
        self.package.close = lambda: None  # its __del__ closes, too

    def _seen(self) -> str:
        said = str(self._state["observation"]).strip()
        return f"{said}\n\nCommands: {'; '.join(sorted(self._state['validActions']))}" if self._commands else said


class _WithGoldPath(TextWorldExpress):
    def expert(self) -> Iterator[str]:
        """Win as the package knows how to."""
        yield from list(self.server.getGoldActionSequence())

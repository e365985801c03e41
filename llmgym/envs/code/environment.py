"""The environment: a function to write or to mend, hidden tests, and three attempts."""

import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from llmgym.envs.code.program import Program, draw_program
from llmgym.envs.code.runner import CodeError, RunnerError, outputs
from llmgym.envs.reading import last_block
from llmgym.envs.splits import Split, check_difficulty_and_split, draw_in_split
from llmgym.envs.text_env import TextEnv
from llmgym.errors import ConfigError
from llmgym.types import Episode, Score

WORTH = (1.0, 0.8, 0.6)  # of each attempt
_MOST_CHARS = 10_000  # of code


class Level(NamedTuple):
    """What a difficulty asks for."""

    steps: int  # before the function returns
    examples: int


LEVELS = (Level(1, 3), Level(2, 3), Level(4, 2), Level(6, 1))


class Code(TextEnv):
    """Write a Python function, or mend one that has a mistake, in at most three attempts.

    The function takes a list of numbers or of words and does some steps one after another, which are described; in half
    of the tasks a function with one mistake is shown. The last block of code in a reply, between lines of three
    backticks, is run against twelve hidden tests. If one fails, the agent is told what kind of test it is and whether
    the function raised something, by name if that is a built-in exception, and not which value was expected.

    The reward is 1 if all hidden tests pass at the first attempt, 0.8 at the second, 0.6 at the third, else 0
    (``solved``). Passing some tests earns nothing. No constant passes more than a third of the tests.

    | difficulty | steps | examples |
    |---|---|---|
    | 0 | 1 | 3 |
    | 1 | 2 | 3 |
    | 2 | 4 | 2 |
    | 3 | 6 | 1 |

    The code runs in a process of its own, which knows no expected value, with bounded time, memory and output, an
    empty environment, and neither files, processes, threads, sockets nor further imports. It is killed after its time.
    This keeps mistakes and simple tricks from doing harm. It is no sandbox: code that sets out to break Python itself
    is not held, so run whatever you do not trust within a container as well. Values are compared as JSON in the
    environment's own process, so nothing in the code decides whether it is right. If the process cannot be started, the
    episode has no score.

    Args:
        difficulty: 0 to 3.
        split: ``"train"`` or ``"eval"``; no task belongs to both.
        options: What every `TextEnv` takes: `render_mode`, `scorer`.

    Raises:
        ConfigError: The system is not POSIX, and cannot bound what a process does.
    """

    max_turns = len(WORTH)
    blocking = True
    system_prompt = (
        "You write Python functions. Give the whole function `solve` in a block of code between lines of three "
        "backticks. It is run against hidden tests. You may import "
        "bisect, collections, functools, heapq, itertools, json, math, operator, re, string and typing."
    )

    def __init__(self, difficulty: int = 1, split: Split = "train", **options: Any) -> None:
        super().__init__(**options)
        check_difficulty_and_split(difficulty, len(LEVELS), split)
        if os.name != "posix":
            raise ConfigError(
                f"Code bounds what a process does by the means of POSIX, which this system ({os.name}) lacks."
            )
        self.level = LEVELS[difficulty]
        self.split: Split = split

    def begin(self) -> str:
        """Draw a function and describe it."""
        program = draw_in_split(lambda rng: draw_program(rng, *self.level), self.np_random, self.split)
        self.episode.task = program
        self._solved, self._error = 0.0, ""
        lines = [f"{number}. {step.text}" for number, step in enumerate(program.steps, 1)]
        asks = "Write a function `solve(values)`"
        if program.broken:
            asks = "The function below has one mistake. Mend it"
        given = ["", f"```python\n{program.wrong}\n```"] if program.broken else []
        examples = [f"solve({values!r}) == {program.value(values)!r}" for values in program.shown]
        what = f"It takes a list of {program.type} and does this, step by step:"
        return "\n".join([f"{asks}. {what}", *lines, *given, "", "Examples:", *examples])

    def respond(self, action: str) -> str | None:
        """Run the code against the hidden tests; end when all pass, or nothing can be run."""
        attempt, program = len(self.episode.turns), self.episode.task
        code = last_block(action)
        if code is None:
            failed: str | None = "There is no block of code"
        elif len(code) > _MOST_CHARS:
            failed = f"The code has more than {_MOST_CHARS} characters"
        else:
            try:
                failed = failure(program, code)
            except RunnerError as error:
                self._error = str(error)
                return None
        if failed is None:
            self._solved = WORTH[attempt - 1]
            return None
        left = len(WORTH) - attempt
        return f"{failed}. Attempts left: {left}." if left else None

    def score(self, episode: Episode) -> Score:
        """Return what the attempts were worth; nothing is known where the code could not be run."""
        return Score(None, error=self._error) if self._error else Score(self._solved, {"solved": self._solved})

    def succeeded(self, score: Score) -> bool:
        """Tell whether some attempt passed all tests, whatever scored it."""
        return self._solved > 0

    def expert(self) -> Iterator[str]:
        """Give the function."""
        yield f"```python\n{self.episode.task.right}\n```"

    def mistake(self) -> Iterator[str]:
        """Give the function with a mistake in one step, and insist on it."""
        for _ in WORTH:
            yield f"```python\n{self.episode.task.wrong}\n```"


def failure(program: Program, code: str) -> str | None:
    """Return what is wrong with code, of the first hidden test that it fails; None if it passes all.

    Raises:
        RunnerError: It could not be run.
    """
    values = outputs(code, [(arguments,) for arguments in program.hidden])
    for arguments, value in zip(program.hidden, values, strict=True):
        if isinstance(value, CodeError):
            return f"On a hidden test with {kind_of(arguments)}, {value}"
        # As JSON, so that True is not 1 and nothing of the value's own is asked.
        if json.dumps(value) != json.dumps(program.value(arguments)):
            return f"On a hidden test with {kind_of(arguments)}, the value is wrong"
    return None


def kind_of(arguments: list[Any]) -> str:
    """Return what kind of test it is, in words."""
    if len(arguments) < 2:
        return ("an empty list", "a list of one")[len(arguments)]
    if len(set(arguments)) < len(arguments):
        return "repeated values"
    return "negative numbers" if any(isinstance(one, int) and one < 0 for one in arguments) else "a longer list"

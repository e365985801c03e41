"""The environment: numbers, and a target to reach with them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from llmgym.calls import ActionLike, ToolCall
from llmgym.envs.arithmetic.calculator import give_calculator
from llmgym.envs.arithmetic.expression import OPERATORS, Operation, apply, numbers_in, parse, value
from llmgym.envs.reading import tagged
from llmgym.envs.splits import Split, check_difficulty_and_split, draw_in_split, one_of
from llmgym.envs.text_env import TextEnv
from llmgym.types import Episode

_LARGEST = 5_000  # result on the way to a target


class Level(NamedTuple):
    """What a difficulty asks for."""

    small: int  # how many small numbers
    highest: int  # of the small numbers
    large: int  # how many of 25, 50, 75 and 100
    targets: tuple[int, int]


LEVELS = (
    Level(small=3, highest=15, large=0, targets=(10, 99)),
    Level(small=4, highest=12, large=0, targets=(10, 99)),
    Level(small=4, highest=10, large=1, targets=(100, 499)),
    Level(small=4, highest=10, large=2, targets=(100, 999)),
)


@dataclass(frozen=True, slots=True)
class Numbers:
    """One task: numbers, a target, and an expression of all numbers that reaches it."""

    numbers: tuple[int, ...]
    target: int
    solution: Operation

    @property
    def content(self) -> str:
        """The task, in whatever order its numbers are shown."""
        return f"{sorted(self.numbers)} {self.target}"


class Countdown(TextEnv):
    """Reach a target with the given numbers and the four operations, as in the game of the same name.

    Every number may be used at most once, and not all have to be. Every result on the way is a whole number above
    zero: nothing negative, no fractions. The agent may think aloud; its answer is one expression between ``<answer>``
    and ``</answer>``, made of the numbers, ``+ - * /`` and parentheses, without an equals sign. A reply with two
    answers has none. There is one turn.

    With `calculator`, the agent has a tool that works expressions out, and four more turns to call it. The expert tries
    its expression once before it answers; a mistake is an answer without a call.

    A task is made backwards from a solution, so each has one, which uses all numbers. No target is one of the numbers
    or the result of two of them.

    The reward is the sum of two parts:

    - ``valid`` (0.1): the answer is an expression of at least two of the numbers that keeps the rules.
    - ``exact`` (0.9): it also reaches the target.

    Nothing is paid for coming near. The nearest number is easily found without a solution, and a policy that is paid
    for it learns to guess.

    | difficulty | numbers | target |
    |---|---|---|
    | 0 | three from 1 to 15 | 10 to 99 |
    | 1 | four from 1 to 12 | 10 to 99 |
    | 2 | four from 1 to 10, one of 25, 50, 75, 100 | 100 to 499 |
    | 3 | four from 1 to 10, two of 25, 50, 75, 100 | 100 to 999 |

    Args:
        difficulty: 0 to 3.
        split: ``"train"`` or ``"eval"``; no numbers and target belong to both, in whatever order.
        calculator: Whether the agent has a calculator.
        options: What every `TextEnv` takes: `render_mode`, `scorer`.
    """

    max_turns = 1

    def __init__(self, difficulty: int = 1, split: Split = "train", calculator: bool = False, **options: Any) -> None:
        super().__init__(**options)
        check_difficulty_and_split(difficulty, len(LEVELS), split)
        one_of("calculator", calculator, (False, True))
        if calculator:
            give_calculator(self)
        self.level = LEVELS[difficulty]
        self.split: Split = split

    def begin(self) -> str:
        """Draw numbers and a target, and ask for the expression."""
        task = draw_in_split(self._draw, self.np_random, self.split)
        self.episode.task = task
        return (
            f"Numbers: {', '.join(map(str, task.numbers))}\nTarget: {task.target}\n"
            "Reach the target with + - * / and parentheses. Use each number at most once. Every result on the way has "
            "to be a whole number above zero.\nGive one expression, without an equals sign: "
            "<answer>expression</answer>"
        )

    def _draw(self, rng: np.random.Generator) -> Numbers:
        while True:
            small = rng.integers(1, self.level.highest, self.level.small, endpoint=True)
            large = rng.choice([25, 50, 75, 100], self.level.large, replace=False)
            numbers = tuple(int(number) for number in rng.permutation([*small, *large]))
            solution, target = _join(rng, numbers)
            low, high = self.level.targets
            if low <= target <= high and target not in numbers and target not in _of_two(numbers):
                return Numbers(numbers, target, solution)

    def score(self, episode: Episode) -> dict[str, float]:
        """Read the answer and work it out."""
        task: Numbers = episode.task
        reached = reached_by(episode.actions[-1], task)
        return {"valid": 0.1 * (reached is not None), "exact": 0.9 * (reached == task.target)}

    def expert(self) -> Iterator[ActionLike]:
        """Give the expression that the task was made from, after trying it if there is a calculator."""
        solution = str(self.episode.task.solution)
        if self.toolbox:
            yield ToolCall("calculator", {"expression": solution})
        yield f"<answer>{solution}</answer>"

    def mistake(self) -> Iterator[str]:
        """Change one operator, or use a number twice: an expression of the same look that misses."""
        task: Numbers = self.episode.task
        yield f"<answer>{_spoilt(self.np_random, task)}</answer>"


def reached_by(reply: str, task: Numbers) -> int | None:
    """Return what the answer in a reply comes to; None if it has none that keeps the rules."""
    answer = tagged(reply, "answer")
    expression = None if answer is None else parse(answer)
    if not isinstance(expression, Operation) or Counter(numbers_in(expression)) - Counter(task.numbers):
        return None
    return value(expression, positive=True)


def _join(rng: np.random.Generator, numbers: tuple[int, ...]) -> tuple[Operation, int]:
    """Join all numbers by random operations that keep the rules; return the expression and its value."""
    pool: list[tuple[int | Operation, int]] = [(number, number) for number in numbers]
    while True:
        i, j = (int(index) for index in rng.permutation(len(pool))[:2])
        (left, a), (right, b) = pool[i], pool[j]
        operator = OPERATORS[rng.integers(len(OPERATORS))]
        result = apply(operator, a, b)
        if result is None or not 0 < result <= _LARGEST:
            continue
        joined = Operation(operator, left, right)
        pool = [(joined, result), *(pool[k] for k in range(len(pool)) if k not in (i, j))]
        if len(pool) == 1:
            return joined, result


def _of_two(numbers: tuple[int, ...]) -> set[int | None]:
    """Return what two of the numbers come to."""
    pairs = [pair for a, b in combinations(numbers, 2) for pair in ((a, b), (b, a))]
    return {apply(operator, a, b) for a, b in pairs for operator in OPERATORS}


def _spoilt(rng: np.random.Generator, task: Numbers) -> str:
    """Return the solution with another operator, or another number of the task, somewhere; it earns less."""
    words = str(task.solution).split(" ")
    changes = [
        " ".join([*words[:i], other, *words[i + 1 :]])
        for i, word in enumerate(words)
        for other in (OPERATORS if word in OPERATORS else map(str, task.numbers) if word.isdigit() else ())
        if other != word
    ]
    wrong = [text for text in changes if reached_by(f"<answer>{text}</answer>", task) != task.target]
    return str(rng.choice(wrong))

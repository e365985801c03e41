"""The environment: an expression to work out."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from llmgym.calls import ActionLike, ToolCall
from llmgym.envs.arithmetic.calculator import give_calculator
from llmgym.envs.arithmetic.expression import Operation, Operator, value
from llmgym.envs.reading import tagged
from llmgym.envs.splits import Split, check_difficulty_and_split, draw_in_split, one_of
from llmgym.envs.text_env import TextEnv
from llmgym.types import Episode

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,19}")


class Level(NamedTuple):
    """What a difficulty asks for."""

    terms: int
    highest: int  # term of a sum or a difference
    factor: int  # highest factor of a product; 0 for no products


LEVELS = (Level(2, 99, 0), Level(3, 99, 0), Level(3, 999, 12), Level(5, 9999, 99))


@dataclass(frozen=True, slots=True)
class Sum:
    """One task: an expression and its value."""

    expression: Operation
    value: int

    @property
    def content(self) -> str:
        """The expression."""
        return str(self.expression)


class Sums(TextEnv):
    """Work out an expression of whole numbers.

    The agent may think aloud; its answer is one whole number between ``<answer>`` and ``</answer>``, in digits,
    with a minus sign if it is negative, and nothing else. A reply with two answers has none. There is one turn.

    With `calculator`, the agent has a tool that works expressions out, and four more turns to call it. The expert calls
    it once and answers what it says; a mistake is an answer without a call.

    The reward is the sum of two parts:

    - ``form`` (0.1): there is one answer, and it is a whole number.
    - ``right`` (0.9): it is the right one.

    | difficulty | terms | operations | numbers up to |
    |---|---|---|---|
    | 0 | 2 | + - | 99 |
    | 1 | 3 | + - | 99 |
    | 2 | 3, one of them a product | + - * | 999, factors up to 12 |
    | 3 | 5, one of them a product | + - * and parentheses | 9,999, factors up to 99 |

    Args:
        difficulty: 0 to 3.
        split: ``"train"`` or ``"eval"``; no expression belongs to both.
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
        """Draw an expression and show it."""
        task = draw_in_split(self._draw, self.np_random, self.split)
        self.episode.task = task
        return f"Work out: {task.expression}\nGive one whole number: <answer>number</answer>"

    def _draw(self, rng: np.random.Generator) -> Sum:
        terms: list[int | Operation] = [
            int(number) for number in rng.integers(1, self.level.highest, self.level.terms, endpoint=True)
        ]
        if self.level.factor:
            left, right = (int(factor) for factor in rng.integers(2, self.level.factor, 2, endpoint=True))
            terms[rng.integers(len(terms))] = Operation("*", left, right)
        while len(terms) > 1:
            # Joining others than the first two makes parentheses.
            first = int(rng.integers(len(terms) - 1)) if self.level.terms > 3 else 0
            operator: Operator = "+" if rng.random() < 0.5 else "-"
            terms[first : first + 2] = [Operation(operator, terms[first], terms[first + 1])]
        (expression,) = terms
        result = value(expression)
        assert isinstance(expression, Operation), "there are two terms or more"
        assert result is not None, "only division has no result"
        return Sum(expression, result)

    def score(self, episode: Episode) -> dict[str, float]:
        """Compare the answer with the value."""
        answer = self.final_answer(episode.actions[-1])
        return {"form": 0.1 * (answer is not None), "right": 0.9 * (answer == str(episode.task.value))}

    @staticmethod
    def final_answer(reply: str) -> str | None:
        """Return the whole number of the answer."""
        answer = tagged(reply, "answer")
        return answer if answer is not None and _INTEGER.fullmatch(answer) else None

    def expert(self) -> Iterator[ActionLike]:
        """Give the value, which the calculator says if there is one."""
        result = str(self.episode.task.value)
        if self.toolbox:
            yield ToolCall("calculator", {"expression": str(self.episode.task.expression)})
            result = self.heard[-1].content
        yield f"<answer>{result}</answer>"

    def mistake(self) -> Iterator[str]:
        """Be off as somebody is who works it out in the head: by a carry, or by a sign."""
        right = self.episode.task.value
        wrong = [number for number in (right + 1, right - 1, right + 10, right - 10, -right) if number != right]
        yield f"<answer>{self.np_random.choice(wrong)}</answer>"

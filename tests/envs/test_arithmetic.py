"""Countdown and sums: exact answers are paid, and nothing that only looks like one."""

import ast
import itertools
import operator
import re
import time
from fractions import Fraction
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playing import LAZY, contents, make, played, told

from llmgym.calls import ToolCall, calling
from llmgym.envs.arithmetic.calculator import TURNS, calculator
from llmgym.envs.arithmetic.countdown import Numbers, reached_by
from llmgym.envs.arithmetic.expression import MAX_DEPTH, Operation, numbers_in, parse, value
from llmgym.envs.tools import ToolError
from llmgym.errors import ConfigError

NAMES = ["Countdown", "Sums"]
APPLY = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def worked_out(text: str) -> tuple[Fraction, list[Fraction], list[int]]:
    """Return the value of an expression, all results on the way and its numbers, as Python's grammar has them."""
    results, numbers = [], []

    def visit(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Constant):
            numbers.append(node.value)
            return Fraction(node.value)  # type: ignore[arg-type]
        assert isinstance(node, ast.BinOp)
        results.append(APPLY[type(node.op)](visit(node.left), visit(node.right)))  # type: ignore[index]
        return results[-1]

    return visit(ast.parse(text, mode="eval").body), results, numbers


expressions = st.recursive(
    st.integers(0, 60),
    lambda inner: st.builds(Operation, st.sampled_from(["+", "-", "*", "/"]), inner, inner),
    max_leaves=8,
)


@given(expressions)
def test_what_is_written_reads_back_and_has_the_value_that_pythons_grammar_gives(expression: Any) -> None:
    text = str(expression)
    again = parse(text)
    assert again is not None
    assert list(numbers_in(again)) == list(numbers_in(expression))
    try:
        expected, results, numbers = worked_out(text)
    except ZeroDivisionError:
        assert value(again) is None
        return
    assert list(numbers_in(again)) == numbers
    whole = all(result.denominator == 1 for result in results)
    assert value(again) == (expected if whole else None)
    assert value(again, positive=True) == (expected if whole and all(result > 0 for result in results) else None)
    if whole:
        assert value(expression) == expected


@given(st.one_of(st.text(), st.text(alphabet="0123456789+-*/() ", max_size=40)))
def test_any_text_is_an_expression_of_pythons_or_none(text: str) -> None:
    expression = parse(text)
    if expression is not None:
        numbers = [int(number) for number in re.findall("[0-9]+", text)]
        assert list(numbers_in(expression)) == numbers
        assert text.count("(") == text.count(")") <= MAX_DEPTH


@pytest.mark.parametrize(
    "text",
    ["", "-3", "3 +", "3 4", "3 = 3", "3 ** 4", "3 // 1", "2(3)", "()", "(3", "3)", "٣", "3²", "3.0", "1e3", "0x3",
     "1_0", "3 × 4", "1" * 10, "(" * 500 + "3" + ")" * 500, "(" * 21 + "3" + ")" * 21, "1+" * 100 + "1",
     "__import__('os')"],
)  # fmt: skip
def test_what_is_no_expression_or_too_much_of_one_is_none(text: str) -> None:
    assert parse(text) is None


@cache
def reachable(numbers: tuple[int, ...]) -> frozenset[int]:
    """Return all that some of the numbers come to, by trying everything."""
    found = set(numbers)
    for i, j in itertools.permutations(range(len(numbers)), 2):
        a, b = numbers[i], numbers[j]
        rest = tuple(numbers[k] for k in range(len(numbers)) if k not in (i, j))
        for result in {a + b, a * b, *([a - b] if a > b else []), *([a // b] if a % b == 0 else [])}:
            found |= reachable(tuple(sorted((*rest, result))))
    return frozenset(found)


def test_every_target_can_be_reached_and_is_not_near() -> None:
    for difficulty, seeds in ((0, 50), (1, 30), (2, 3)):
        env = make("Countdown", difficulty=difficulty)
        for seed in range(seeds):
            env.reset(seed=seed)
            task = env.episode.task
            assert task.target in reachable(tuple(sorted(task.numbers)))
            assert not any(task.target in reachable(pair) for pair in itertools.combinations(task.numbers, 2))


@pytest.mark.parametrize("difficulty", range(4))
@pytest.mark.parametrize("name", NAMES)
def test_the_expert_earns_it_all_and_a_mistake_almost_nothing(name: str, difficulty: int) -> None:
    env = make(name, difficulty=difficulty)
    for seed in range(200):
        assert told(env, seed, "expert") == (pytest.approx(1.0), {"success": 1.0, **dict(env.scored.parts)})
        assert told(env, seed, "mistake")[0] <= 0.1
        assert all(played(env, seed, policy)[0] == 0 for policy in LAZY.values())


TASK = Numbers((3, 5, 7, 7), 26, Operation("+", Operation("*", 3, 7), 5))


@pytest.mark.parametrize(
    ("reply", "reached"),
    [
        ("<answer>3 * 7 + 5</answer>", 26),
        ("Let me see: 3 * 7 is 21, plus 5.\n<answer>\n5+3*7 </answer>", 26),
        ("<answer>7 + 7</answer>", 14),
        ("<answer>7 * 7 / 7</answer>", None),  # three times
        ("<answer>26</answer>", None),
        ("<answer>7</answer>", None),  # one number is no expression of them
        ("<answer>21 + 5</answer>", None),
        ("<answer>(3 - 5) * 7 + 7 * 5</answer>", None),
        ("<answer>3 - 5 + 7</answer>", None),  # -2 on the way
        ("<answer>(7 - 7) * 3 + 5</answer>", None),  # 0 on the way
        ("<answer>5 / 3 + 7</answer>", None),
        ("<answer>5 / (7 - 7)</answer>", None),
        ("3 * 7 + 5", None),
        ("<answer>3 * 7 + 5 = 26</answer>", None),
        ("<answer>3 * 7 + 5</answer><answer>3 * 7 + 5</answer>", None),
        ("</answer>3 * 7 + 5<answer>", None),
        ("<answer><answer>3 * 7 + 5</answer>", None),
    ],
)
def test_an_answer_is_one_expression_that_keeps_the_rules(reply: str, reached: int | None) -> None:
    assert reached_by(reply, TASK) == reached


answers = st.text(alphabet="0123456789+-*/() ", max_size=30).map(lambda text: f"<answer>{text}</answer>")


@given(st.one_of(st.text(), answers))
def test_whatever_is_replied_a_full_reward_is_for_what_is_right(reply: str) -> None:
    for name in NAMES:
        total, info = played(make(name), 3, lambda env, seen: reply)
        assert total in (0.0, pytest.approx(0.1), pytest.approx(1.0))
        assert info["success"] == (total > 0.5)


@pytest.mark.parametrize(
    "answer",
    ["{}.0", "+{}", "0{}", "{} {}", "{},", "about {}", "1 or {}", "<answer>{}</answer>", "{}\n{}", "{0:,}e0"],
)
def test_a_sum_is_answered_by_one_number_in_digits(answer: str) -> None:
    env = make("Sums", difficulty=3)
    for seed in range(20):
        total, _ = played(
            env, seed, lambda env, seen: f"<answer>{answer.format(*[env.episode.task.value] * 2)}</answer>"
        )
        assert total == 0


def test_a_sum_has_the_value_that_pythons_grammar_gives() -> None:
    for difficulty in range(4):
        env = make("Sums", difficulty=difficulty)
        for seed in range(100):
            observation, _ = env.reset(seed=seed)
            shown = observation.splitlines()[0].removeprefix("Work out: ")
            assert worked_out(shown)[0] == env.episode.task.value


@pytest.mark.parametrize("name", NAMES)
def test_no_task_is_in_both_splits(name: str) -> None:
    for difficulty in range(4):
        seen = {split: contents(name, split, range(300), difficulty=difficulty) for split in ("train", "eval")}
        assert not seen["train"] & seen["eval"]
        assert min(map(len, seen.values())) > 200


def test_numbers_in_another_order_are_the_same_task() -> None:
    assert Numbers((7, 3, 7, 5), 26, TASK.solution).content == TASK.content


@pytest.mark.parametrize(
    "options",
    [
        {"difficulty": 4},
        {"difficulty": -1},
        {"difficulty": True},
        {"difficulty": 1.0},
        {"split": "test"},
        {"calculator": 1},
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_value_of_an_argument_is_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))} has to be one of"):
        make(name, **options)


def test_a_hundred_kilobytes_are_read_at_once() -> None:
    texts = ["<answer>" * 12_000, "<answer>" + "(" * 100_000 + "</answer>", "<answer>" + "9*" * 50_000 + "9</answer>"]
    began = time.process_time()
    for text in texts:
        assert reached_by(text, TASK) is None
    assert time.process_time() - began < 0.5


@given(expressions)
def test_a_calculator_says_what_an_expression_comes_to(expression: Any) -> None:
    result = value(expression)
    if result is None:
        with pytest.raises(ToolError, match="leaves a remainder or is by zero"):
            calculator(str(expression))
    else:
        assert calculator(str(expression)) == result


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("3 +", "expected whole numbers .* got '3 \\+'"),
        ("-3", "without a sign"),
        ("2 ** 9", r"such as \(3 \+ 4\) \* 5"),
        ("__import__('os').system('true')", "expected whole numbers"),
        ("1234567890 + 1", "at most 9 digits"),
        ("(" * 21 + "3" + ")" * 21, "at most 20 pairs of parentheses"),
        ("1+" * 100 + "1", "at most 200 characters, got 201"),
        ("7 / 2", "leaves a remainder"),
        ("7 / (3 - 3)", "by zero"),
    ],
)
def test_a_calculator_says_what_is_wrong_with_any_other_text(text: str, wrong: str) -> None:
    with pytest.raises(ToolError, match=wrong):
        calculator(text)


def call(expression: object) -> str:
    return calling(ToolCall("calculator", {"expression": expression}))


@pytest.mark.parametrize("difficulty", range(4))
@pytest.mark.parametrize("name", NAMES)
def test_with_a_calculator_the_expert_calls_it_once_and_a_mistake_does_without(name: str, difficulty: int) -> None:
    env = make(name, difficulty=difficulty, calculator=True)
    for seed in range(50):
        total, info = told(env, seed, "expert")
        assert (total, info["success"]) == (pytest.approx(1.0), 1.0)
        assert (info["tools/calls"], info["tools/failures"]) == (1.0, 0.0)
        assert env.episode.turns[1].observation == str(
            env.episode.task.value if name == "Sums" else env.episode.task.target
        )
        total, info = told(env, seed, "mistake")
        assert total <= 0.1
        assert info["tools/calls"] == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_calculator_changes_no_task_and_is_there_only_if_asked_for(name: str) -> None:
    plain, helped = make(name), make(name, calculator=True)
    assert [plain.reset(seed=seed) for seed in range(20)] == [helped.reset(seed=seed) for seed in range(20)]
    assert not plain.toolbox
    assert [schema["function"]["name"] for schema in helped.toolbox.schemas] == ["calculator"]
    plain.reset(seed=0)
    assert plain.step(call("1 + 1"))[2]  # a reply like any other: the episode is over


@pytest.mark.parametrize("name", NAMES)
def test_calls_take_turns_of_which_the_last_is_for_the_answer(name: str) -> None:
    env = make(name, calculator=True)
    env.reset(seed=1)
    for expression in ["1 + 1", 12, "what?", "5 / 0"]:
        seen, reward, terminated, truncated, info = env.step(call(expression))
        assert (reward, terminated, truncated) == (0.0, False, False)
    assert "by zero" in seen
    assert TURNS == 4
    seen, reward, terminated, truncated, info = env.step(call("2 + 2"))
    assert (seen, reward, terminated, truncated) == ("4", 0.0, False, True)
    assert (info["tools/calls"], info["tools/failures"]) == (5.0, 3.0)

"""The answer in a reply, and what a scorer of Reasoning Gym may see of it; the package is not needed."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgym.envs.adapters.reasoning_gym.answers import answer_in, is_algebra, is_arithmetic, is_literal, may_be_scored

ATTACKS = [
    "__import__('os').system('true')",
    "().__class__.__base__.__subclasses__()",
    "exit()",
    "open('/etc/passwd')",
    "[x for x in (1,)]",
    "(lambda: 1)()",
    "f'{print(1)}'",
    "x.__class__",
    "sin.__globals__",
    "x[0]",
    "x := 1",
    "print(1)",
    "*x",
    "x == x",
]


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("<answer>214</answer>", "214"),
        ("I think <answer>1</answer>, no: <answer>\n214 </answer>.", "214"),
        ("<think>an <answer> tag?</think><answer>214</answer>", "214"),
        ("<answer>214", "214"),
        ("214", "214"),
        ("First this.\n\nThen that:\n214\n", "214"),
        ("", ""),
        ("</answer>", "</answer>"),
    ],
)
def test_the_answer_is_in_the_last_tag_or_else_the_last_line(reply: str, answer: str) -> None:
    assert answer_in(reply, "214") == answer


def test_the_whole_reply_is_the_answer_where_answers_have_several_lines_or_are_not_known() -> None:
    assert answer_in("1 2\n3 4\n", "5 6\n7 8") == "1 2\n3 4"
    assert answer_in("1 2\n3 4\n", None) == "1 2\n3 4"


def test_white_space_around_an_answer_does_not_make_it_wrong() -> None:
    assert answer_in("<answer>\na b\n</answer>", "a b ") == "a b "


@given(st.text())
def test_any_reply_has_an_answer(reply: str) -> None:
    assert answer_in(reply, "1").strip() in reply


@pytest.mark.parametrize("attack", ATTACKS)
def test_code_is_no_answer(attack: str) -> None:
    assert not is_literal(attack)
    assert not is_arithmetic(attack)
    assert not is_algebra(attack)


@pytest.mark.parametrize("answer", ["A B C", "[1, 2]", "[['Q', '_'], ['_', 'Q']]", "_ Q\nQ _", "-1 2", ""])
def test_words_numbers_and_literals_may_be_evaluated(answer: str) -> None:
    assert is_literal(answer)


@pytest.mark.parametrize("answer", ["(1 + 2) * 3", "7 / 2 - 1.5"])
def test_arithmetic_may_be_evaluated(answer: str) -> None:
    assert is_arithmetic(answer)


@pytest.mark.parametrize("answer", ["x**2/2 + C", "-3*exp(-2*x)*sin(x) + C", "(x + 1)**(1/2)", "2*x**3*y - z", "2**x"])
def test_algebra_may_be_evaluated(answer: str) -> None:
    assert is_algebra(answer)


@pytest.mark.parametrize("answer", ["9**9**9", "x**9**9", "((9**30)**30)**30", "x**99999", "1e99*x", "1" * 2000])
def test_numbers_that_take_for_ever_are_no_algebra(answer: str) -> None:
    assert not is_algebra(answer)


@pytest.mark.parametrize("name", ["binary_matrix", "countdown", "simple_integration"])
@given(st.text(alphabet="_().x[]'os1+* ", max_size=30))
def test_what_may_be_evaluated_calls_nothing_but_functions_of_calculus(name: str, answer: str) -> None:
    if may_be_scored(name, answer):
        assert "__" not in answer or "(" not in answer


def test_nan_is_no_number() -> None:
    assert not may_be_scored("complex_arithmetic", "NaN + 1i")
    assert may_be_scored("complex_arithmetic", "2.0 + 1.0i")


def test_screening_needs_no_package() -> None:
    program = "import sys, llmgym.envs.adapters.reasoning_gym.answers; print('reasoning_gym' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"

"""Which part of a reply is the answer, and which answers a data set's own scorer may see.

Some scorers of the package hand the answer to Python's ``eval``, or to SymPy's parser, which does the same: a reply
could run code. Others never return on large numbers, or give full marks to ``nan``. So what they may see is screened
here: a screen lets through whatever could be right.
"""

import ast
import re
from collections.abc import Callable

_OPENING, _CLOSING = "<answer>", "</answer>"
_LONGEST_EXPRESSION = 1_000  # characters
_LARGEST_NUMBER = 10**12
_LARGEST_EXPONENT = 30
_FUNCTIONS = frozenset(
    [
        "sin",
        "cos",
        "tan",
        "sec",
        "csc",
        "cot",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "tanh",
        "asinh",
        "acosh",
        "atanh",
        "exp",
        "log",
        "ln",
        "sqrt",
        "Abs",
        "erf",
    ]
)


def answer_in(reply: str, oracle: str | None) -> str:
    """Return the answer in a reply: what is inside its last ``<answer>`` tag.

    Without a tag it is the last line that is not empty, or the whole reply where the package's own answer has
    several lines or is not known.

    Args:
        reply: The reply.
        oracle: The package's own answer. An answer that differs from it in surrounding white space only is taken as it.
    """
    end = reply.rfind(_CLOSING)
    start = reply.rfind(_OPENING, 0, end if end >= 0 else len(reply))
    if start >= 0:
        answer = reply[start + len(_OPENING) : end if end >= 0 else len(reply)].strip()
    else:
        answer = reply.strip()
        if oracle is not None and "\n" not in oracle.strip():
            answer = answer.rpartition("\n")[2].strip()
    return oracle if oracle is not None and answer == oracle.strip() else answer


def may_be_scored(data_set: str, answer: str) -> bool:
    """Whether the scorer of a data set may see an answer."""
    screen = _SCREENS.get(data_set)
    return screen is None or screen(answer)


def is_literal(answer: str) -> bool:
    """Whether an answer is words and numbers, or a literal of Python: as code, either does nothing."""
    if re.fullmatch(r"[\w\s-]*", answer):
        return True
    try:
        ast.literal_eval(answer)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False
    return True


def is_arithmetic(answer: str) -> bool:
    """Whether an answer is an expression of numbers and ``+ - * /``, without powers."""
    return len(answer) <= _LONGEST_EXPRESSION and "**" not in answer and bool(re.fullmatch(r"[0-9+\-*/() .]*", answer))


def is_algebra(answer: str) -> bool:
    """Whether an answer is an expression of numbers, variables of one letter, and the functions of calculus."""
    if len(answer) > _LONGEST_EXPRESSION or not re.fullmatch(r"[A-Za-z0-9+\-*/() .]*", answer):
        return False
    try:
        return all(map(_is_algebra, ast.walk(ast.parse(answer.strip(), mode="eval").body)))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False


def _is_algebra(node: ast.AST) -> bool:
    match node:
        case ast.Name(id=name):
            return len(name) == 1 or name in _FUNCTIONS
        case ast.Call(func=ast.Name(id=name), args=[_], keywords=[]):
            return name in _FUNCTIONS
        case ast.Constant(value=int(value) | float(value)):
            return not isinstance(value, bool) and value <= _LARGEST_NUMBER
        case ast.BinOp(left=base, op=ast.Pow(), right=exponent):
            return _is_small(exponent) and (_has_names(base) or _is_small(base))
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div()) | ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            return True
        case ast.operator() | ast.unaryop() | ast.expr_context():
            return True
    return False


def _is_small(node: ast.expr) -> bool:
    """Whether the numbers of an expression stay small: none is large, and none is raised to a power."""
    return all(
        not (isinstance(one, ast.Constant) and isinstance(one.value, int | float) and one.value > _LARGEST_EXPONENT)
        and not (isinstance(one, ast.BinOp) and isinstance(one.op, ast.Pow) and not _has_names(one))
        for one in ast.walk(node)
    )


def _has_names(node: ast.AST) -> bool:
    return any(isinstance(one, ast.Name) for one in ast.walk(node))


def _is_short_number(answer: str) -> bool:
    return re.search(r"[eE][+-]?\d{3}", answer) is None


def _turns_little(answer: str) -> bool:
    return re.search(r"\d{3}", answer) is None


def _is_a_number(answer: str) -> bool:
    return "nan" not in answer.lower()


_SCREENS: dict[str, Callable[[str], bool]] = {
    **dict.fromkeys(["binary_matrix", "n_queens", "spiral_matrix", "string_insertion"], is_literal),
    **dict.fromkeys(["countdown", "puzzle24"], is_arithmetic),
    **dict.fromkeys(["intermediate_integration", "polynomial_multiplication", "simple_integration"], is_algebra),
    "coin_flip": _is_short_number,
    "complex_arithmetic": _is_a_number,
    "rubiks_cube": _turns_little,
}

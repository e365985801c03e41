"""Expressions over whole numbers: written, read back and worked out, without the interpreter's own parser."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast, get_args

Operator = Literal["+", "-", "*", "/"]


MAX_CHARS = 200
MAX_DIGITS = 9  # of a number
MAX_DEPTH = 20  # of parentheses

_STRENGTH = {"+": 1, "-": 1, "*": 2, "/": 2}
_TOKEN = re.compile(r"[0-9]+|[-+*/()]")


@dataclass(frozen=True, slots=True)
class Operation:
    """Two expressions and what joins them.

    Example:
        >>> str(Operation("*", Operation("+", 3, 4), 5))
        '(3 + 4) * 5'
    """

    operator: Operator
    left: "int | Operation"
    right: "int | Operation"

    def __str__(self) -> str:
        """Write it with the fewest parentheses that keep its meaning."""
        strength = _STRENGTH[self.operator]
        left = f"({self.left})" if _strength(self.left) < strength else f"{self.left}"
        binds = _strength(self.right) > strength or (_strength(self.right) == strength and self.operator == "+")
        return f"{left} {self.operator} {self.right if binds else f'({self.right})'}"


def _strength(expression: int | Operation) -> int:
    return _STRENGTH[expression.operator] if isinstance(expression, Operation) else 3


def parse(text: str) -> int | Operation | None:
    """Read an expression of whole numbers, ``+ - * /`` and parentheses.

    The usual precedence holds, and operators of equal strength go from left to right. There is no sign: ``-3`` is not
    a number.

    Returns:
        The expression; None for any other text, and for one beyond `MAX_CHARS`, `MAX_DIGITS` or `MAX_DEPTH`.

    Examples:
        >>> parse("2 + 3 * 4") == Operation("+", 2, Operation("*", 3, 4))
        True
        >>> parse("2 + 3 = 5") is None
        True
    """
    if len(text) > MAX_CHARS or _TOKEN.sub("", text).strip(" \t\r\n"):
        return None
    try:
        return _Reader(_TOKEN.findall(text)).whole()
    except _NotAnExpressionError:
        return None


class _NotAnExpressionError(Exception):
    """The text is none."""


class _Reader:
    """Reads tokens by recursive descent."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = [*tokens, ""]
        self._next = 0
        self._depth = 0

    def whole(self) -> int | Operation:
        """Read all tokens as one expression."""
        expression = self._joined(1)
        if self._peek():
            raise _NotAnExpressionError
        return expression

    def _peek(self) -> str:
        return self._tokens[self._next]

    def _take(self) -> str:
        token = self._peek()
        self._next += 1
        return token

    def _joined(self, strength: int) -> int | Operation:
        """Read operands that operators of a strength join; those of the stronger ones come first."""
        operand = self._operand if strength == 2 else lambda: self._joined(2)
        expression = operand()
        while _STRENGTH.get(self._peek()) == strength:
            operator = cast(Operator, self._take())
            expression = Operation(operator, expression, operand())
        return expression

    def _operand(self) -> int | Operation:
        token = self._take() if self._peek() else ""
        if token.isdigit() and len(token) <= MAX_DIGITS:
            return int(token)
        self._depth += 1
        if token != "(" or self._depth > MAX_DEPTH:
            raise _NotAnExpressionError
        expression = self._joined(1)
        if not self._peek() or self._take() != ")":
            raise _NotAnExpressionError
        self._depth -= 1
        return expression


def numbers_in(expression: int | Operation) -> Iterator[int]:
    """Yield the numbers of an expression, from left to right."""
    if isinstance(expression, int):
        yield expression
    else:
        yield from numbers_in(expression.left)
        yield from numbers_in(expression.right)


def apply(operator: Operator, left: int, right: int) -> int | None:
    """Return what an operator makes of two numbers; None for a quotient that is not whole."""
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    return left // right if right and left % right == 0 else None


def value(expression: int | Operation, *, positive: bool = False) -> int | None:
    """Work an expression out.

    Args:
        expression: The expression.
        positive: Whether every result on the way has to be above zero.

    Returns:
        Its value; None if a division on the way leaves a remainder, or a result is not as asked for.

    Examples:
        >>> value(parse("(7 - 9) * 2"))
        -4
        >>> value(parse("(7 - 9) * 2"), positive=True) is None
        True
    """
    if isinstance(expression, int):
        return expression
    left, right = value(expression.left, positive=positive), value(expression.right, positive=positive)
    result = None if left is None or right is None else apply(expression.operator, left, right)
    return None if result is None or (positive and result <= 0) else result


OPERATORS: tuple[Operator, ...] = get_args(Operator)

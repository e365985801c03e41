"""`Where`: a condition on episodes as text, such as ``score > 0.8 and 0 < pass_rate < 1``: read, never evaluated."""

import ast
import itertools
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any

from llmgym.errors import ConfigError

_LONGEST = 1000  # characters
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_EXPECTED = "a condition such as 'score > 0.8', '0 < pass_rate < 1' or 'ending == \"terminated\" and not success'"


class Where:
    """A condition on facts that have names: comparisons, joined by ``and``, ``or``, ``not`` and brackets.

    A comparison with a fact that is missing is false, whatever it is compared with.

    Args:
        text: The condition.
        names: The names that facts have; one that is no word is written ``parts["its name"]``.

    Raises:
        ConfigError: The text is no condition, or has a name that no fact has.

    Examples:
        >>> hard = Where("0 < pass_rate < 1 and not cut_off", ["pass_rate", "cut_off", "score"])
        >>> hard({"pass_rate": 0.25, "cut_off": False}), hard({"pass_rate": 1.0, "cut_off": False})
        (True, False)
        >>> Where("score < 1", ["score"])({"score": None})
        False
    """

    def __init__(self, text: str, names: Collection[str]) -> None:
        self._text, self._names = text, names
        try:
            if len(text) > _LONGEST:
                raise ValueError(f"more than {_LONGEST} characters")
            self._test = self._condition(ast.parse(text.strip(), mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = str(error) or type(error).__name__
            if isinstance(error, SyntaxError):
                reason = f"{error.msg} (comparisons are <, <=, ==, !=, >= and >, joined by and, or, not)"
            raise ConfigError(f"{text[:200]!r}: expected {_EXPECTED}; {reason}.") from None

    def __call__(self, facts: Mapping[str, Any]) -> bool:
        """Whether facts, by name, fulfil it."""
        return bool(self._test(facts))

    def _condition(self, node: ast.expr) -> Callable[[Mapping[str, Any]], bool]:
        match node:
            case ast.BoolOp(ast.And(), values):
                parts = [self._condition(value) for value in values]
                return lambda facts: all(part(facts) for part in parts)
            case ast.BoolOp(ast.Or(), values):
                parts = [self._condition(value) for value in values]
                return lambda facts: any(part(facts) for part in parts)
            case ast.UnaryOp(ast.Not(), operand):
                inner = self._condition(operand)
                return lambda facts: not inner(facts)
            case ast.Compare(left, comparisons, rights) if all(type(one) in _COMPARISONS for one in comparisons):
                return self._comparison([left, *rights], [_COMPARISONS[type(one)] for one in comparisons])
            case ast.Name() | ast.Subscript():
                value = self._value(node)
                return lambda facts: self._is_true(node, value(facts))
        raise ValueError(f"{ast.unparse(node)[:80]!r} is none")

    def _is_true(self, node: ast.expr, value: Any) -> bool:
        if isinstance(value, int | float) and not isinstance(value, bool):
            named = ast.unparse(node)
            raise ConfigError(f"{self._text!r}: {named} is a number; expected a comparison, such as {named} == 1.")
        return value is True

    def _comparison(
        self, nodes: list[ast.expr], comparisons: list[Callable[[Any, Any], bool]]
    ) -> Callable[[Mapping[str, Any]], bool]:
        values = [self._value(node) for node in nodes]

        def compare(facts: Mapping[str, Any]) -> bool:
            found = [value(facts) for value in values]
            if any(one is None for one in found):
                return False
            if len({isinstance(one, str) for one in found}) > 1:
                raise ConfigError(f"{self._text!r}: a number and a text cannot be compared.")
            return all(one(*pair) for one, pair in zip(comparisons, itertools.pairwise(found), strict=True))

        return compare

    def _value(self, node: ast.expr) -> Callable[[Mapping[str, Any]], Any]:
        match node:
            case ast.Constant(bool() | int() | float() | str() as value):
                return lambda facts: value
            case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as value)):
                return lambda facts: -value
            case ast.Name(name):
                pass
            case ast.Subscript(ast.Name("parts"), ast.Constant(str() as name)):
                pass
            case _:
                raise ValueError(f"{ast.unparse(node)[:80]!r} is no name, number or text")
        if name not in self._names:
            raise ValueError(f"{name!r:.80} is none of {', '.join(sorted(self._names))}")
        return lambda facts: facts.get(name)

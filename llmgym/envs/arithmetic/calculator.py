"""The calculator: a tool that works expressions out, for environments whose agent may call one."""

from llmgym.envs.arithmetic.expression import MAX_CHARS, MAX_DEPTH, MAX_DIGITS, parse, value
from llmgym.envs.text_env import TextEnv
from llmgym.envs.tools import ToolError

TURNS = 4  # that an episode has for calls, apart from the one for the answer


def calculator(expression: str) -> int:
    """Work out an expression.

    Args:
        expression: Whole numbers, + - * / and parentheses, such as (3 + 4) * 5.
    """
    if len(expression) > MAX_CHARS:
        raise ToolError(f"expected an expression of at most {MAX_CHARS} characters, got {len(expression)}")
    read = parse(expression)
    if read is None:
        raise ToolError(
            f"expected whole numbers of at most {MAX_DIGITS} digits without a sign, + - * / and at most {MAX_DEPTH} "
            f"pairs of parentheses within one another, such as (3 + 4) * 5, got {expression!r:.80}"
        )
    result = value(read)
    if result is None:
        raise ToolError(f"a division in {expression!r:.80} leaves a remainder or is by zero")
    return result


def give_calculator(env: TextEnv) -> None:
    """Let the agent of an environment of one turn call the calculator, which takes further turns."""
    env.tools = (calculator,)
    env.max_turns = 1 + TURNS

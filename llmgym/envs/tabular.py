"""Experts for environments whose transitions are a table, as Gymnasium's toy texts have it."""

from collections import deque
from collections.abc import Callable
from typing import Any

import gymnasium

from llmgym.errors import ConfigError


def shortest_plan(
    env: gymnasium.Env[Any, Any], won: Callable[[float], bool] = lambda reward: reward > 0
) -> list[int] | None:
    """Return as few actions as lead from where an environment is to an end that is won.

    Args:
        env: An environment with ``P[state][action] = [(probability, next state, reward, over)]`` and its state in
            ``s``, as FrozenLake, Taxi and CliffWalking have them.
        won: A function of the last reward that tells whether an end is the one to reach.

    Returns:
        The actions; None if no such end can be reached.

    Raises:
        ConfigError: The environment has no such table, or an action has more than one result.
    """
    table, start = getattr(env.unwrapped, "P", None), getattr(env.unwrapped, "s", None)
    if table is None or start is None:
        raise ConfigError(f"{env} has to have a table of transitions P and a state s, which reset sets.")
    ways: dict[int, list[int]] = {int(start): []}
    queue = deque(ways)
    while queue:
        state = queue.popleft()
        for action, results in table[state].items():
            likely = [result for result in results if result[0] > 0]
            if len(likely) != 1:
                raise ConfigError(f"{env}: action {action} in state {state} has {len(likely)} results, expected one.")
            _, reached, reward, over = likely[0]
            if over and won(float(reward)):
                return [*ways[state], int(action)]
            if not over and int(reached) not in ways:
                ways[int(reached)] = [*ways[state], int(action)]
                queue.append(int(reached))
    return None

"""Which kind of scorer a plain function becomes, by the names of its parameters."""

import inspect
from collections.abc import Callable
from typing import Any

from llmgym.errors import ConfigError
from llmgym.scorers.pointwise import FunctionScorer, Scorer
from llmgym.scorers.trl import TRLScorer
from llmgym.scorers.verl import VerlScorer

_UNSEEN = "completion_ids", "trainer_state", "environments"
"""What TRL hands over and a scorer, which sees text alone, does not have."""


def function_scorer(function: Callable[..., Any]) -> Scorer:
    """Return a scorer from a function of an episode, or from a reward function written for verl or TRL.

    Args:
        function: One that has a parameter ``solution_str`` is called as verl does, one that has ``completions`` as TRL
            does; any other one is given an episode.

    Raises:
        ConfigError: It takes more arguments than an episode, or some that a scorer does not have.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some that are written in C do not say
        return FunctionScorer(function)
    name = getattr(function, "__name__", "the scorer")
    needed = [one.name for one in parameters.values() if one.default is one.empty and one.kind not in _REST]
    if "solution_str" in parameters:
        return VerlScorer(function)
    if "completions" in parameters:
        unseen = [one for one in needed if one in _UNSEEN]
        if unseen:
            raise ConfigError(f"scorer: {name} asks for {', '.join(unseen)}; a scorer sees text and columns alone.")
        return TRLScorer(function)
    if len(needed) > 1:
        raise ConfigError(
            f"scorer: expected a function of one episode, verl's compute_score(data_source, solution_str, "
            f"ground_truth, extra_info) or TRL's reward(prompts, completions, **columns), got {name}"
            f"({', '.join(parameters)})."
        )
    return FunctionScorer(function)


_REST = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD

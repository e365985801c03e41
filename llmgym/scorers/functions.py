"""Which kind of scorer a plain function becomes, by the names of its parameters."""

import inspect
from collections.abc import Callable
from typing import Any

from llmgym.errors import ConfigError
from llmgym.scorers.pointwise import FunctionScorer, Scorer, called
from llmgym.scorers.trl import TRLScorer
from llmgym.scorers.verl import VerlScorer

_UNSEEN = "completion_ids", "trainer_state", "environments"
"""What TRL hands over and a scorer, which sees text alone, does not have."""


def function_scorer(function: Callable[..., Any], name: str | None = None) -> Scorer:
    """Return a scorer from a function of an episode, or from a reward function written for verl or TRL.

    Args:
        function: One that has a parameter ``solution_str`` is called as verl does, one that has ``completions`` as TRL
            does; any other one is given an episode.
        name: What messages call it; None for its own name.

    Raises:
        ConfigError: It takes more arguments than an episode, or some that a scorer does not have.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some that are written in C do not say
        return FunctionScorer(function, name)
    known_as = name or called(function)
    needed = [one.name for one in parameters.values() if one.default is one.empty and one.kind not in _REST]
    if "solution_str" in parameters:
        return VerlScorer(function, name)
    if "completions" in parameters:
        unseen = [one for one in needed if one in _UNSEEN]
        if unseen:
            raise ConfigError(f"scorer: {known_as} asks for {', '.join(unseen)}; a scorer sees text and columns alone.")
        return TRLScorer(function, name)
    try:
        check_takes(function, "episode")
    except ConfigError:
        raise ConfigError(
            f"scorer: expected a function of one episode, verl's compute_score(data_source, solution_str, "
            f"ground_truth, extra_info) or TRL's reward(prompts, completions, **columns), got {known_as}"
            f"({', '.join(parameters)})."
        ) from None
    return FunctionScorer(function, name)


def check_takes(function: Callable[..., Any], *episodes: str) -> None:
    """Refuse a function that cannot be called with so many episodes.

    Args:
        function: The function.
        episodes: What it is called with.

    Raises:
        ConfigError: It cannot.
    """
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # some that are written in C do not say
        return
    try:
        signature.bind(*episodes)
    except TypeError as error:
        name = getattr(function, "__name__", repr(function))
        raise ConfigError(f"scorer: expected a function of {len(episodes)} episodes, got {name}{signature}") from error


_REST = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD

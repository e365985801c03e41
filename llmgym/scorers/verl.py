"""verl's reward functions as they are: ``compute_score(data_source, solution_str, ground_truth, extra_info)``."""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar

from llmgym.envs.waiting import each, then, waits
from llmgym.errors import EnvironmentContractError
from llmgym.scorers.conversations import columns_of, response_of
from llmgym.scorers.pointwise import as_number, called, finite, named
from llmgym.types import Episode, Score


class VerlScorer:
    """A scorer from a function that verl calls as ``custom_reward_function``.

    It is called with keywords, once for each episode. Only ``score`` of a mapping is the reward; its other numbers are
    parts for reports. None is a missing score. ``ground_truth`` is that of ``reward_model``, or else the row's answer.

    Args:
        function: May be a coroutine function, or say that it is `blocking`.
        name: What messages call it; None for its own name.

    Example:
        >>> def compute_score(data_source, solution_str, ground_truth, extra_info=None):
        ...     return {"score": float(solution_str == ground_truth), "length": len(solution_str)}
        >>> from llmgym.types import Turn
        >>> task = {"data_source": "sums", "reward_model": {"style": "rule", "ground_truth": "5"}}
        >>> VerlScorer(compute_score).score([Episode(turns=[Turn("2 + 3?", "5")], task=task)])[0].value
        1.0
    """

    per: ClassVar[str] = "episode"

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        self.function, self.name = function, name or called(function)
        self.waits = waits(function, "__call__")
        self._accepts = accepted_by(function)

    def score(self, episodes: Sequence[Episode]) -> list[Score] | Awaitable[list[Score]]:
        """Call the function for every episode."""
        calls = [(self._arguments(episode),) for episode in episodes]
        values = each(self._call, calls, blocking=getattr(self.function, "blocking", False))
        return then(values, lambda values: [self._score(value) for value in values])

    def _call(self, arguments: dict[str, Any]) -> Any:
        return self.function(**arguments)

    def _arguments(self, episode: Episode) -> dict[str, Any]:
        row = columns_of(episode)
        model = row.get("reward_model")
        truth = model["ground_truth"] if isinstance(model, Mapping) and "ground_truth" in model else row.get("answer")
        messages = 2 * len(episode.turns)  # verl counts the user's and the assistant's
        return self._accepts(
            {
                "data_source": row.get("data_source"),
                "solution_str": response_of(episode),
                "ground_truth": truth,
                "extra_info": {**(row.get("extra_info") or {}), "num_turns": messages, "rollout_reward_scores": {}},
            }
        )

    def _score(self, value: Any) -> Score:
        parts: dict[str, float] = {}
        if isinstance(value, Mapping):
            if "score" not in value:
                raise EnvironmentContractError(
                    f"{self.name} has to return a number or a mapping with 'score', got the keys "
                    f"{', '.join(map(str, value)) or 'none'}."
                )
            rest = {key: as_number(one) for key, one in value.items() if key != "score"}
            parts = named({key: one for key, one in rest.items() if one is not None}, self.name)
            value = value["score"]
        if value is None:
            return Score(None, parts, error=f"{self.name} returned None")
        return Score(finite(value, self.name), parts)


def accepted_by(function: Callable[..., Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what leaves those keyword arguments that a function takes: all of them if it has ``**kwargs``."""
    parameters = inspect.signature(function).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return lambda arguments: arguments
    names = {one.name for one in parameters}
    return lambda arguments: {name: value for name, value in arguments.items() if name in names}

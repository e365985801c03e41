"""TRL's reward functions as they are: ``reward(prompts, completions, **columns) -> list[float | None]``."""

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from llmgym.envs.waiting import each, then, waits
from llmgym.errors import DataError
from llmgym.scorers.conversations import columns_of, divided, response_of
from llmgym.scorers.pointwise import as_number, called, finite, one_each
from llmgym.scorers.verl import accepted_by
from llmgym.types import Episode, Score

_TAKEN = "prompt", "completion", "completion_ids"  # columns that TRL hands over under other names, or not at all


class TRLScorer:
    """A scorer from a function that TRL takes as ``reward_funcs``.

    It is called with keywords, once for all episodes of a rollout. Prompts and completions are texts where the row's
    prompt is a text, and lists of ``{role, content}`` where it is one. Every other column is a list under its name.
    None is a missing score. ``log_metric(name, value)`` and the numbers of ``log_extra(column, values)`` become parts.

    Args:
        function: May be a coroutine function, or say that it is `blocking`.
        name: What messages call it; None for its own name.

    Example:
        >>> def reward(prompts, completions, solution, **kwargs):
        ...     return [float(said == right) for said, right in zip(completions, solution)]
        >>> from llmgym.types import Turn
        >>> task = {"prompt": "2 + 3?", "solution": "5"}
        >>> TRLScorer(reward).score([Episode(turns=[Turn("2 + 3?", "5")], task=task)])[0].value
        1.0
    """

    per: ClassVar[str] = "rollout"

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        self.function, self.name = function, name or called(function)
        self.waits = waits(function, "__call__")
        self._accepts = accepted_by(function)

    def score(self, episodes: Sequence[Episode]) -> list[Score] | Awaitable[list[Score]]:
        """Call the function once."""
        logged: list[dict[str, float]] = [{} for _ in episodes]
        arguments = self._accepts({**_batch(episodes), **_loggers(logged, self.name)})
        answers = each(self._call, [(arguments,)], blocking=getattr(self.function, "blocking", False))
        return then(answers, lambda answers: self._scores(answers[0], logged))

    def _call(self, arguments: dict[str, Any]) -> Any:
        return self.function(**arguments)

    def _scores(self, answer: Any, logged: Sequence[dict[str, float]]) -> list[Score]:
        values = one_each(answer, len(logged), self.name)
        missing = f"{self.name} returned None"
        return [
            Score(None, parts, error=missing) if _is_missing(value) else Score(value, parts)
            for value, parts in zip(values, logged, strict=True)
        ]


def _batch(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Return prompts, completions and columns, a list each.

    Raises:
        DataError: Some rows have a column that others lack.
    """
    rows = [columns_of(episode) for episode in episodes]
    names = list(rows[0]) if rows else []
    for row in rows:
        if set(row) != set(names):
            odd = min(map(str, set(row) ^ set(names)))
            raise DataError(
                f"A reward function that takes batches expects each column in every row; some rows lack {odd!r}."
            )
    pairs = [divided(episode) for episode in episodes]
    plain = [isinstance(row.get("prompt"), str) for row in rows]
    return {
        "prompts": [
            row["prompt"] if text else [message.chat for message in prompt]
            for row, text, (prompt, _) in zip(rows, plain, pairs, strict=True)
        ],
        "completions": [
            response_of(episode) if text else [message.chat for message in completion]
            for episode, text, (_, completion) in zip(episodes, plain, pairs, strict=True)
        ],
        **{name: [row[name] for row in rows] for name in names if name not in _TAKEN},
    }


def _loggers(logged: Sequence[dict[str, float]], name: str) -> dict[str, Callable[[str, Any], None]]:
    """Return the functions that TRL hands over for what else a function measures."""

    def log_metric(metric: str, value: Any) -> None:
        for parts in logged:
            parts[metric] = finite(value, f"{name}'s log_metric({metric!r})")

    def log_extra(column: str, values: Any) -> None:
        each_one = one_each(values, len(logged), f"{name}'s log_extra({column!r})")
        for parts, value in zip(logged, each_one, strict=True):
            if (number := as_number(value)) is not None and math.isfinite(number):
                parts[column] = number

    return {"log_extra": log_extra, "log_metric": log_metric}


def _is_missing(value: object) -> bool:
    """Tell whether there is no reward: None, or NaN, which TRL makes of it."""
    return value is None or ((number := as_number(value)) is not None and math.isnan(number))

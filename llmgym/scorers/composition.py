"""Scorers made of scorers: a weighted sum, a product, a gate and a clip.

Each of the scorers that one is made of is asked about the same episodes, and reported as a part under its name.
"""

import asyncio
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from llmgym.envs.waiting import awaited, settled, then
from llmgym.errors import ConfigError, EnvironmentContractError
from llmgym.scorers import own
from llmgym.scorers.asking import WIDER, AnyScorer, Per, ask, asked_per, compares, is_waiting
from llmgym.scorers.names import find_named
from llmgym.scorers.pointwise import ScoreFunction, as_number, as_score, called
from llmgym.types import Episode, Score

Component = AnyScorer | ScoreFunction | str
"""A scorer, a function, or a name of either."""

_ONE_AT_A_TIME = threading.Lock()  # so that no scorer has to expect two threads

Missing = Literal["mask", "skip"]


class Composed(ABC):
    """A scorer that asks others, and makes one score of theirs.

    A part of a part is reported as well, under ``name.part``. What is made is a reward, whatever the others give.

    Args:
        components: Those that are asked.

    Raises:
        ConfigError: Two have the same name, there is none, or they are one text.
    """

    def __init__(self, components: Iterable[Component]) -> None:
        if isinstance(components, str):
            raise ConfigError(f"scorer: {type(self).__name__} expects several scorers, got {components!r:.80}.")
        self.scorers: dict[str, AnyScorer] = {}
        """Those that are asked, by the names of their parts."""
        for component in components:
            name = name_of(component)
            if name in self.scorers:
                raise ConfigError(f"scorer: two parts are called {name!r}; expected a name of its own for each.")
            self.scorers[name] = find_named(component)()
        if not self.scorers:
            raise ConfigError(f"scorer: {type(self).__name__} expects at least one scorer, got none.")
        self.waits = any(map(is_waiting, self.scorers.values()))
        self.compares = any(map(compares, self.scorers.values()))
        self.per: Per = max(map(asked_per, self.scorers.values()), key=WIDER.index)

    @abstractmethod
    def combine(self, scores: Mapping[str, Score]) -> Score:
        """Return one score of those of the components; its parts are added by who calls this."""

    def score(self, episodes: Sequence[Episode]) -> list[Score] | Awaitable[list[Score]]:
        """Score episodes that are no siblings."""
        return self.score_siblings(episodes, range(len(episodes)))

    def score_siblings(
        self, episodes: Sequence[Episode], groups: Sequence[int]
    ) -> list[Score] | Awaitable[list[Score]]:
        """Score episodes.

        Args:
            episodes: Finished ones.
            groups: The group of each.
        """
        turns = [len(episode.turns) for episode in episodes]
        answers = self._asked_waiting(episodes, groups) if self.waits else self._asked(episodes, groups)
        return then(answers, lambda answers: list(map(self._combined, turns, zip(*answers, strict=True))))

    def _asked(self, episodes: Sequence[Episode], groups: Sequence[int]) -> list[list[Score]]:
        return [settled(ask(scorer, episodes, groups)) for scorer in self.scorers.values()]

    async def _asked_waiting(self, episodes: Sequence[Episode], groups: Sequence[int]) -> list[list[Score]]:
        """Ask all of them at once; those that do not wait, one after another in a thread, where they delay nobody."""

        def ask_others() -> list[list[Score]]:
            with _ONE_AT_A_TIME:
                return [settled(ask(scorer, episodes, groups)) for scorer in others]

        others = [scorer for scorer in self.scorers.values() if not is_waiting(scorer)]
        waiting: list[Any] = [ask(scorer, episodes, groups) for scorer in self.scorers.values() if is_waiting(scorer)]
        known, *later = await asyncio.gather(asyncio.to_thread(ask_others), *map(awaited, waiting))
        answers = {False: iter(known), True: iter(later)}
        return [next(answers[is_waiting(scorer)]) for scorer in self.scorers.values()]

    def _combined(self, turns: int, scores: Sequence[Score]) -> Score:
        named = dict(zip(self.scorers, scores, strict=True))
        parts = {name: score.value for name, score in named.items() if score.value is not None}
        within = {f"{name}.{part}": value for name, score in named.items() for part, value in score.parts.items()}
        name = type(self).__name__
        try:
            combined = as_score(self.combine(named), turns, name)
        except EnvironmentContractError as error:
            combined = Score(None, error=str(error))
        except OverflowError as error:
            combined = Score(None, error=f"{name}: {error}")
        return replace(combined, parts={**parts, **within})


def _number(value: object, what: str) -> float:
    """Return an option as a number that is none but a number; infinity will do."""
    number = None if isinstance(value, bool) else as_number(value)
    if number is None or math.isnan(number):
        raise ConfigError(f"scorer: {what} has to be a number, got {value!r:.80}.")
    return number


class Weighted(Composed):
    """A weighted sum. A scorer of weight 0 is only reported, and never missed.

    Args:
        weights: What each scorer counts. The keys are names, functions or scorers.
        missing: What becomes of an episode that one of them cannot score: ``"mask"`` leaves it without a score, so that
            it votes nowhere; ``"skip"`` leaves out that scorer, and scales the others up to the same sum of weights.

    Raises:
        ConfigError: A weight is not a finite number, two scorers have the same name, or there is none.

    Example:
        >>> from llmgym.types import Turn
        >>> def brief(episode):
        ...     return float(len(episode.actions[-1]) < 10)
        >>> episode = Episode(turns=[Turn("2 + 3?", "5")], task={"answer": "6"})
        >>> Weighted({"exact": 0.7, brief: 0.3}).score([episode])[0]
        Score(value=0.3, parts={'exact': 0.0, 'brief': 1.0}, error=None, rewards=None, kind='reward')
    """

    def __init__(self, weights: Mapping[Component, float] | Mapping[str, float], *, missing: Missing = "mask") -> None:
        if not isinstance(weights, Mapping):
            raise ConfigError(f"scorer: Weighted expects weights by scorer, got {weights!r:.80}.")
        super().__init__(weights)
        if missing not in get_args(Missing):
            raise ConfigError(f"missing: expected one of {get_args(Missing)}, got {missing!r:.80}.")
        named = zip(self.scorers, weights.values(), strict=True)
        self.weights = {name: _number(weight, f"the weight of {name!r}") for name, weight in named}
        if not all(map(math.isfinite, self.weights.values())):
            raise ConfigError(f"scorer: expected finite weights, got {self.weights}.")
        self.missing = missing

    def combine(self, scores: Mapping[str, Score]) -> Score:
        """Return the sum; see `Composed`."""
        counted = {name: scores[name] for name, weight in self.weights.items() if weight}
        there = {name: score for name, score in counted.items() if score.value is not None}
        if len(there) < len(counted) and (self.missing == "mask" or not there):
            return _missing(counted)
        present = sum(self.weights[name] for name in there)
        if len(there) < len(counted) and not present:
            return Score(None, error=f"the weights of {' and '.join(there)}, which are there, sum to 0")
        scale = sum(self.weights.values()) / present if len(there) < len(counted) else 1.0
        return _sum([(scale * self.weights[name], score) for name, score in there.items()])


class Product(Composed):
    """A product: each scorer scales what the others give.

    Args:
        factors: Names, functions or scorers.

    Example:
        >>> from llmgym.types import Turn
        >>> episode = Episode(turns=[Turn("2 + 3?", "It is 5.")], task={"answer": "5"})
        >>> Product(["number", "contains"]).score([episode])[0].value
        1.0
    """

    def __init__(self, factors: Iterable[Component]) -> None:
        super().__init__(factors)

    def combine(self, scores: Mapping[str, Score]) -> Score:
        """Return the product; see `Composed`."""
        values = [score.value for score in scores.values() if score.value is not None]
        return Score(math.prod(values)) if len(values) == len(scores) else _missing(scores)


class Gated(Composed):
    """What one scorer gives, if another one gives enough; else a fixed value.

    An episode that does not pass the gate is scored although `then` may have missed it.

    Args:
        by: The gate.
        then: What counts if it is open.
        at_least: The value of the gate from which on it is open.
        otherwise: The score if it is closed.

    Example:
        >>> from llmgym.types import Turn
        >>> episode = Episode(turns=[Turn("2 + 3?", "It is 5.")], task={"answer": "5"})
        >>> Gated(by="exact", then="number").score([episode])[0].value
        0.0
    """

    def __init__(self, by: Component, then: Component, *, at_least: float = 1.0, otherwise: float = 0.0) -> None:
        super().__init__([by, then])
        self.at_least, self.otherwise = _number(at_least, "at_least"), _number(otherwise, "otherwise")

    def combine(self, scores: Mapping[str, Score]) -> Score:
        """Return what the gate lets through; see `Composed`."""
        gate, then = scores.values()
        if gate.value is None:
            return _missing(scores)
        if gate.value < self.at_least:
            return Score(self.otherwise)
        return _missing(scores) if then.value is None else _sum([(1.0, then)])


class Clipped(Composed):
    """What a scorer gives, within bounds. Rewards of turns are lost where a bound is passed.

    Args:
        scorer: Whose scores are clipped.
        low: The least score.
        high: The greatest one.

    Raises:
        ConfigError: The bounds are in the wrong order.

    Example:
        >>> from llmgym.types import Turn
        >>> Clipped(lambda episode: 3.0, 0.0, 1.0).score([Episode(turns=[Turn("a", "b")])])[0].value
        1.0
    """

    def __init__(self, scorer: Component, low: float = -math.inf, high: float = math.inf) -> None:
        super().__init__([scorer])
        self.low, self.high = _number(low, "low"), _number(high, "high")
        if not self.low <= self.high:
            raise ConfigError(f"scorer: Clipped expects low <= high, got {low} and {high}.")

    def combine(self, scores: Mapping[str, Score]) -> Score:
        """Return the score within its bounds; see `Composed`."""
        (score,) = scores.values()
        if score.value is None:
            return _missing(scores)
        value = min(max(score.value, self.low), self.high)
        return Score(value, rewards=score.rewards if value == score.value else None)


def only_reported(scorer: AnyScorer | None) -> list[str]:
    """Return the names of the parts of weight 0: what they measure is reported and counts for nothing.

    Examples:
        >>> only_reported(Weighted({"exact": 1.0, "contains": 0.0}))
        ['contains']
    """
    if not isinstance(scorer, Composed):
        return []
    weights = getattr(scorer, "weights", {})
    own = [name for name, weight in weights.items() if not weight]
    return own + [f"{name}.{part}" for name, one in scorer.scorers.items() for part in only_reported(one)]


def put_on(scorer: AnyScorer, device: str) -> None:
    """Have the scorers that are models of this process, and have a method `to`, run on a device."""
    if isinstance(scorer, Composed):
        for one in scorer.scorers.values():
            put_on(one, device)
    elif callable(to := getattr(scorer, "to", None)):
        to(device)


def reads_environment(scorer: AnyScorer) -> bool:
    """Tell whether a scorer reads what the environment itself says of an episode, or is made of one that does."""
    if isinstance(scorer, Composed):
        return any(map(reads_environment, scorer.scorers.values()))
    return isinstance(scorer, own.Part) or getattr(scorer, "function", None) is own.env


def name_of(component: Component) -> str:
    """Return what a component's part is called: the name that it was given by, or its own."""
    if isinstance(component, str):
        return component
    return called(component)


def _sum(weighted: Sequence[tuple[float, Score]]) -> Score:
    """Return the sum of scores; where one of them has rewards of turns, so has the sum."""
    value = math.fsum(weight * score.value for weight, score in weighted if score.value is not None)
    lengths = {len(score.rewards) for _, score in weighted if score.rewards is not None}
    if not lengths:
        return Score(value)
    turns = max(lengths)
    columns = [
        [weight * reward for reward in score.rewards or [*[0.0] * (turns - 1), score.value or 0.0]]
        for weight, score in weighted
    ]
    rewards = [math.fsum(column) for column in zip(*columns, strict=True)]
    return Score(math.fsum(rewards), rewards=rewards)


def _missing(scores: Mapping[str, Score]) -> Score:
    """Return the missing score that says which ones are missing and why."""
    missing = {name: score.error for name, score in scores.items() if score.error}
    return Score(None, error="; ".join(why if name in why else f"{name}: {why}" for name, why in missing.items()))

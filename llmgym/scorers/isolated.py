"""Scorers that are asked in processes of their own, which can be killed: one that hangs or crashes costs one score."""

import asyncio
import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from llmgym.envs.waiting import waits
from llmgym.errors import ConfigError
from llmgym.scorers.asking import AnyScorer, Per, asked_per, is_waiting
from llmgym.scorers.composition import Composed
from llmgym.scorers.names import is_plain
from llmgym.scorers.pairwise import Comparison, PairwiseFunctionScorer, PairwiseScorer
from llmgym.scorers.pointwise import called
from llmgym.types import Episode, Score
from llmgym.workers.pool import Pool
from llmgym.workers.references import reference
from llmgym.workers.values import encode
from llmgym.workers.worker import WorkerError

_HANDLER = "llmgym.scorers.isolated_worker:answer"

Json = Any


def isolated(scorer: AnyScorer, *, workers: int, timeout: float, log: Path | None = None) -> AnyScorer:
    """Return a scorer that is asked in worker processes.

    Those of llmgym, unless they say ``may_hang = True``, and coroutines, which wait without holding anybody up, stay in
    this process. Of a composition, each part is taken by itself.

    Args:
        scorer: Any kind of scorer, if its function or class can be imported from a module or a file.
        workers: The number of processes.
        timeout: Seconds that a call may take.
        log: File to append what scorers print to; None for nowhere.

    Raises:
        ConfigError: A worker cannot import a scorer.
    """
    outside = {name: _sent(one) for name, one in _leaves(scorer, "scorer") if _is_moved(one)}
    if not outside:
        return scorer
    pool = Pool(_HANDLER, first={"make": outside}, size=workers, limit=timeout, log=log)
    return _moved(scorer, "scorer", pool)


def _leaves(scorer: AnyScorer, path: str) -> Iterator[tuple[str, AnyScorer]]:
    """Yield the scorers that a scorer is made of, each with where it is within the whole."""
    if isinstance(scorer, Composed):
        for name, part in scorer.scorers.items():
            yield from _leaves(part, f"{path}.{name}")
    else:
        yield path, scorer


def _moved(scorer: AnyScorer, path: str, pool: Pool) -> AnyScorer:
    """Return a scorer whose leaves are asked in a pool, which knows them by their path."""
    if isinstance(scorer, Composed):
        moved = copy.copy(scorer)
        moved.scorers = {name: _moved(part, f"{path}.{name}", pool) for name, part in scorer.scorers.items()}
        moved.waits = any(map(is_waiting, moved.scorers.values()))
        return moved
    if not _is_moved(scorer):
        return scorer
    return (_Comparing if isinstance(scorer, PairwiseScorer) else _Scoring)(scorer, path, pool)


def _is_moved(scorer: AnyScorer) -> bool:
    """Tell whether a scorer is somebody's own, or says that it may hang, and holds the process up while it is asked."""
    thing = getattr(scorer, "function", type(scorer))
    own = str(getattr(thing, "__module__", "")).partition(".")[0] != "llmgym"
    blocks = getattr(thing, "blocking", False) or not waits(thing, "score", "compare", "__call__")
    return (own or getattr(thing, "may_hang", False)) and bool(blocks)


def _sent(scorer: AnyScorer) -> Json:
    """Return what a worker makes the same scorer of.

    Raises:
        ConfigError: It cannot.
    """
    try:
        if (function := getattr(scorer, "function", None)) is not None:
            return {"of": reference(function), "as": reference(type(scorer)), "name": called(scorer)}
        return {"class": reference(type(scorer))} if is_plain(scorer) else {"instance": encode(scorer)}
    except ConfigError as error:
        raise ConfigError(f"scorer_workers: {called(scorer)} cannot be made in another process: {error}") from error


class _Isolated:
    """A scorer that is asked in a pool.

    Args:
        scorer: What is asked.
        path: What the pool knows it by.
        pool: The workers.
    """

    waits: ClassVar[bool] = True
    isolates: ClassVar[bool] = True  # what goes wrong with one episode costs no other, however many it is asked about

    def __init__(self, scorer: AnyScorer, path: str, pool: Pool) -> None:
        self.name, self.per = called(scorer), asked_per(scorer)
        self._path, self._pool = path, pool

    async def _asked(self, calls: Sequence[Sequence[Any]]) -> list[Any]:
        """Return what the scorer says of episodes or pairs, in calls of its own; a worker that fails loses one call."""
        messages = [{"scorer": self._path, "about": [encode(one) for one in about]} for about in calls]
        batches = await asyncio.gather(*map(asyncio.wrap_future, self._pool.submit_all(messages)))
        answers = [answer for batch in batches for answer in batch]
        return [one for about, answer in zip(calls, answers, strict=True) for one in self._read(len(about), answer)]

    def _read(self, count: int, answer: Any) -> list[Any]:
        if isinstance(answer, WorkerError):
            return [Score(None, error=f"{self.name} did not answer: {answer}")] * count
        return [Score(**one) if isinstance(one, dict) else one for one in answer]


class _Scoring(_Isolated):
    """A scorer of episodes; each is a call of its own, unless the scorer wants to see several."""

    per: Per

    async def score(self, episodes: Sequence[Episode]) -> list[Score]:
        """Have the scorer asked."""
        return await self._asked([[one] for one in episodes] if self.per == "episode" else [episodes])


class _Comparing(_Isolated):
    """A scorer that compares; each pair is a call of its own, unless the scorer wants to see several."""

    def __init__(self, scorer: AnyScorer, path: str, pool: Pool) -> None:
        super().__init__(scorer, path, pool)
        self._singly = isinstance(scorer, PairwiseFunctionScorer)
        self.opponents: int | None = getattr(scorer, "opponents", None)

    async def compare(self, pairs: Sequence[tuple[Episode, Episode]]) -> list[Comparison]:
        """Have the scorer asked."""
        return await self._asked([[one] for one in pairs] if self._singly else [pairs])

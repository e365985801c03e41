"""`Filter`: which episodes of a run a page asks for."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from llmgym.data.trajectories import read_shard
from llmgym.errors import ConfigError
from llmgym.view.index import Array, Episodes, expected

OUTCOMES = ("success", "failure", "unknown")
"""What the environment says; an episode whose environment failed has no verdict."""

SORTS = ("step", "score", "length", "turns")
"""What a table can be sorted by; with a minus sign before it, the largest first."""

_SEARCH = 0.1  # seconds after which a search says how far it has come


@dataclass(frozen=True)
class Filter:
    """What episodes have to be like.

    Attributes:
        step: Their step.
        group: Their group.
        ending: Their ending.
        outcome: One of `OUTCOMES`.
        low: Their least score.
        high: Their largest.
        shortest: Sampled tokens, at least.
        longest: Sampled tokens, at most.
        task: Their seed or row, as in ``seed 7``, ``row 3`` or ``7``.
        text: What a message of theirs has in it, whatever its case.
        everybody: Whether messages of others than the agent count.
        sort: One of `SORTS`, perhaps with a minus sign; what has a text comes in the order of the newest step.
    """

    step: int | None = None
    group: int | None = None
    ending: str = ""
    outcome: str = ""
    low: float | None = None
    high: float | None = None
    shortest: int | None = None
    longest: int | None = None
    task: str = ""
    text: str = ""
    everybody: bool = False
    sort: str = "-step"

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Filter":
        """Read a filter from the parameters of an address; those that it has none for are left alone.

        Raises:
            ConfigError: A value is none that can be asked for.
        """
        given = {name: query[name] for name in cls.__annotations__ if query.get(name, "").strip()}
        values: dict[str, Any] = dict(given)
        for name in ("step", "group", "shortest", "longest"):
            values |= {name: _number(given, name, int)} if name in given else {}
        for name in ("low", "high"):
            values |= {name: _number(given, name, float)} if name in given else {}
        if "everybody" in given:
            values["everybody"] = given["everybody"] == "1"
        found = cls(**values)
        _require("outcome", found.outcome, ("", *OUTCOMES))
        _require("sort", found.sort.removeprefix("-"), SORTS)
        return found

    def places(self, episodes: Episodes) -> Array:
        """Return where the episodes are that have all that is asked but the text, in their order."""
        chosen = self.among(episodes)
        if self.outcome:
            success = episodes.success
            chosen &= {"success": success == 1, "failure": success < 1, "unknown": np.isnan(success)}[self.outcome]
        return self._sorted(episodes, np.flatnonzero(chosen))

    def among(self, episodes: Episodes) -> Array:
        """Tell of each episode whether it has all that is asked but the text and the outcome.  [E]"""
        chosen = np.ones(len(episodes), dtype=bool)
        for wanted, values in ((self.step, episodes.step), (self.group, episodes.group)):
            if wanted is not None:
                chosen &= values == wanted
        for bound, values, compare in (
            (self.low, episodes.score, np.greater_equal),
            (self.high, episodes.score, np.less_equal),
            (self.shortest, episodes.length, np.greater_equal),
            (self.longest, episodes.length, np.less_equal),
        ):
            if bound is not None:
                chosen &= compare(values, bound)
        if self.ending:
            chosen &= episodes.ending == self.ending
        if self.task:
            chosen &= self._task(episodes)
        return chosen

    def _task(self, episodes: Episodes) -> Array:
        match = _TASK.fullmatch(self.task.strip())
        if match is None:
            raise ConfigError(f"task: expected a seed or a row, such as 'seed 7' or 'row 3', got {self.task!r:.60}.")
        kind, number = match[1], int(match[2])
        row: Array = (episodes.data_row == number) & (kind != "seed")
        seed: Array = (episodes.data_row < 0) & (episodes.seed == number) & (kind != "row")
        return row | seed

    def _sorted(self, episodes: Episodes, places: Array) -> Array:
        """Return places in the order that is asked for, or that of the files, in which texts are looked for."""
        sort = "-step" if self.text else self.sort
        values: Array = getattr(episodes, sort.removeprefix("-"))[places].astype(np.float64)
        keys = -values if sort.startswith("-") else values  # NaN comes last either way
        return places[np.lexsort((episodes.index[places], -episodes.step[places], keys))]

    def search(self, episodes: Episodes, places: Array, start: int, count: int) -> tuple[list[int], int]:
        """Look for the text in the order of the files, for a short time or until enough is found.

        Args:
            episodes: Of the run.
            places: Those that have all else that is asked.
            start: How many of them were looked at before.
            count: How many are wanted.

        Returns:
            Where it is, and how many of `places` have been looked at.
        """
        until = time.monotonic() + _SEARCH
        found: list[int] = []
        files = episodes.file[places]
        ends = np.append(np.flatnonzero(np.diff(files)) + 1, len(places))
        while start < len(places):
            stop = int(ends[np.searchsorted(ends, start, side="right")])
            has = self._has_text(episodes, int(files[start]))
            for place in places[start:stop]:
                start += 1
                if has[episodes.row[place]]:
                    found.append(int(place))
                    if len(found) == count:
                        return found, start
            if time.monotonic() > until:
                break
        return found, start

    def _has_text(self, episodes: Episodes, file: int) -> Array:
        """Tell of each row of a file whether it has the text."""
        with expected("messages", episodes.files[file]):
            messages = read_shard(episodes.files[file], ("messages",)).column("messages").combine_chunks()
            inner = pc.list_flatten(messages)
            matches = pc.match_substring(inner.field("content").fill_null(""), self.text, ignore_case=True)
            if not self.everybody:
                matches = pc.and_(matches, pc.equal(inner.field("role"), "assistant").fill_null(False))
            of = pc.list_parent_indices(messages).filter(matches).to_numpy()
            return np.bincount(of, minlength=len(messages)) > 0


_TASK = re.compile(r"(?:(seed|row) *)?(\d{1,18})")


def _number(given: Mapping[str, str], name: str, kind: Callable[[str], Any]) -> Any:
    try:
        value = kind(given[name])
    except ValueError:
        value = None
    if value is None or abs(value) >= 2**63:
        raise ConfigError(f"{name}: expected a number, got {given[name]!r:.60}.")
    return value


def _require(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name}: expected one of {', '.join(filter(None, known))}, got {value!r:.60}.")

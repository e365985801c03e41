"""`Answers`: what the pages ask for, as JSON has it; the server gives it, and a report carries it."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from llmgym.errors import ConfigError, UnknownNameError
from llmgym.view.episode import episode_pages, group_page, last_replies, summary_of
from llmgym.view.filters import Filter
from llmgym.view.index import Array, Episodes
from llmgym.view.metrics import mean, meaning_of
from llmgym.view.pieces import Pieces
from llmgym.view.runs import Run
from llmgym.view.tasks import shared_tasks
from llmgym.visible import visible

PAGE = 50
"""Lines of a table's page."""

_MOST = 200  # lines that are asked for at once
_MOST_TASKS = 16  # of a step, that are named above its episodes


class Answers:
    """What the pages of some runs ask for.

    Args:
        runs: The runs, of which somebody else reads what is new.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = list(runs)
        self._pieces = {run.label: Pieces(run) for run in self.runs}
        self._lock = threading.Lock()  # of the tokenizers
        self._paths: dict[str, Callable[[Mapping[str, str]], dict[str, Any]]] = {
            "runs": self._all_runs,
            "metrics": self._metrics,
            "episodes": self._episodes,
            "replies": self._replies,
            "episode": self._episode,
            "group": self._group,
            "tasks": self._tasks,
        }

    def answer(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Return an answer.

        Args:
            path: What is asked for.
            query: The parameters of the question.

        Raises:
            UnknownNameError: There is no such path or run.
            ConfigError: A parameter is none that can be asked for.
            DataError: What is asked for is not there, or cannot be read.
        """
        if path not in self._paths:
            raise UnknownNameError(f"expected one of {', '.join(self._paths)}, got {path!r:.60}.")
        return self._paths[path](query)

    def _all_runs(self, query: Mapping[str, str]) -> dict[str, Any]:
        return {"runs": [self._described(run) for run in self.runs]}

    def _described(self, run: Run) -> dict[str, Any]:
        episodes, config = run.index.episodes, run.config
        shown = ("env", "model", "steps", "seed", "learning_rate", "group_size", "prompts_per_step", "advantage")
        return {
            "label": run.label,
            "changes": run.changes,
            "steps": len(run.metrics.steps),
            "episodes": len(episodes),
            "pending": run.index.pending,
            "options": {name: visible(str(config[name])) for name in shown if config.get(name) is not None},
            "evaluations": run.evaluations,
            "parts": {visible(name): visible(words) for name, words in run.parts.items()},
            "endings": [visible(one) for one in sorted(set(episodes.ending.tolist()))],
            "faults": [visible(one) for one in run.faults],
        }

    def _metrics(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return the metrics of a run from a line on, a list per name, and what each is."""
        run = self._run(query)
        edition, steps = run.metrics.edition, run.metrics.steps
        start = _whole(query, "from", 0) if _whole(query, "edition", edition) == edition else 0
        new = steps[start:]
        names = dict.fromkeys(name for one in new for name in one)
        columns = {visible(name): [one.get(name) for one in new] for name in names}
        meanings = {visible(name): visible(meaning_of(name, run.parts)) for name in names}
        return {
            "run": run.label,
            "edition": edition,
            "from": start,
            "count": len(new),
            "columns": columns,
            "meanings": meanings,
        }

    def _episodes(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return a page of the table of episodes."""
        run = self._run(query)
        episodes, wanted = run.index.episodes, Filter.of(query)
        start, count = _whole(query, "from", 0), min(_MOST, _whole(query, "count", PAGE))
        places = wanted.places(episodes)
        if wanted.text:
            chosen, upto = wanted.search(episodes, places, start, count)
        else:
            chosen, upto = places[start : start + count].tolist(), min(len(places), start + count)
        return {
            "rows": [summary_of(run.label, episodes, place) for place in chosen],
            "from": start,
            "to": upto,
            "total": len(places),
            "pending": run.index.pending,
            "summary": None if wanted.text else _summary(episodes, places, wanted),
        }

    def _replies(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return the last replies of some episodes, named as ``step.index,step.index``."""
        episodes = self._run(query).index.episodes
        named = [one.partition(".") for one in query.get("of", "").split(",")][:_MOST]
        if not all(step.isdecimal() and index.isdecimal() for step, _, index in named):
            raise ConfigError("of: expected step.index, step.index and so on.")
        places = [episodes.place(int(step), int(index)) for step, _, index in named]
        return {"replies": last_replies(episodes, np.array(places))}

    def _episode(self, query: Mapping[str, str]) -> dict[str, Any]:
        run = self._run(query)
        episodes = run.index.episodes
        with self._lock:
            (page,) = episode_pages(run, episodes, np.array([_named(query, episodes)]), self._pieces[run.label])
        return page

    def _group(self, query: Mapping[str, str]) -> dict[str, Any]:
        run = self._run(query)
        episodes = run.index.episodes
        return group_page(run, episodes, _named(query, episodes))

    def _tasks(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Return a page of the tasks that two runs both played."""
        first, second = self._run(query), self._run(query, "other")
        start, count = _whole(query, "from", 0), min(_MOST, _whole(query, "count", PAGE))
        return shared_tasks(first, second, start, count)

    def _run(self, query: Mapping[str, str], name: str = "run") -> Run:
        wanted = query.get(name, self.runs[0].label)
        for run in self.runs:
            if run.label == wanted:
                return run
        known = ", ".join(run.label for run in self.runs)
        raise UnknownNameError(f"{name}: expected one of {known}, got {wanted!r:.200}.")


def _named(query: Mapping[str, str], episodes: Episodes) -> int:
    return episodes.place(_whole(query, "step", 0), _whole(query, "index", 0))


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or len(text) > 15:
        raise ConfigError(f"{name}: expected a whole number, got {text!r:.60}.")
    return int(text)


def _summary(episodes: Episodes, places: Array, wanted: Filter) -> dict[str, Any]:
    """Return what the episodes that a filter keeps come to, and how many it would keep whatever their outcome."""
    score, success = episodes.score[places], episodes.success[places]
    parts = {visible(name): mean(values[places]) for name, values in episodes.parts.items()}
    return {
        "count": len(places),
        "among": int(wanted.among(episodes).sum()) if wanted.outcome else len(places),
        "tasks": [] if wanted.step is None or not wanted.outcome else _tally(episodes, places, wanted.step),
        "scored": int((~np.isnan(score)).sum()),
        "score": mean(score),
        "judged": int((~np.isnan(success)).sum()),
        "successes": int((success == 1).sum()),
        "length": mean(episodes.length[places].astype(np.float64)),
        "parts": {name: value for name, value in parts.items() if value is not None},
    }


def _tally(episodes: Episodes, places: Array, step: int) -> list[dict[str, Any]]:
    """Return how many of each group are among some episodes of a step, the most first."""
    whole = episodes.group[episodes.step == step]
    groups, first, counts = np.unique(episodes.group[places], return_index=True, return_counts=True)
    return [
        {
            "task": episodes.task(places[first[at]]),
            "index": int(episodes.index[places[first[at]]]),
            "count": int(counts[at]),
            "of": int((whole == groups[at]).sum()),
        }
        for at in np.argsort(-counts, kind="stable")[:_MOST_TASKS]
    ]

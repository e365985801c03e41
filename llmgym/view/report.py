"""`write_report`: the pages of some runs as one file that opens without a server or a network."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmgym.errors import DataError, RunDirectoryError
from llmgym.files import whole_or_absent
from llmgym.view.answers import Answers
from llmgym.view.episode import episode_pages, summary_of
from llmgym.view.index import Array, Episodes
from llmgym.view.pages import RULES, content
from llmgym.view.pieces import Pieces
from llmgym.view.runs import Run
from llmgym.visible import visible

MOST = 1000
"""Episodes of a run that a report has, about 10 KiB each."""


def write_report(runs: Sequence[Run], path: Path, episodes_per_step: int) -> int:
    """Write a report: all curves, and the first groups of every step, or of as many steps as there is room for.

    Args:
        runs: Of which everything has been read.
        path: The file to write.
        episodes_per_step: How many episodes of a step it has, at most, unless its first group has more.

    Returns:
        How many episodes it has.

    Raises:
        RunDirectoryError: The file cannot be written.
    """
    answers = Answers(runs)
    held = {run.label: _chosen(run.index.episodes, episodes_per_step) for run in runs}
    data = {
        "runs": answers.answer("runs", {})["runs"],
        "metrics": {run.label: answers.answer("metrics", {"run": run.label}) for run in runs},
        "rows": [summary_of(run.label, run.index.episodes, int(at)) for run in runs for at in held[run.label]],
        "episodes": {
            f"{run.label}/{one['step']}/{one['index']}": one for run in runs for one in _pages(run, held[run.label])
        },
        "sample": f"This report has all curves, and a sample of the episodes: {_told(runs, held, episodes_per_step)}.",
    }
    try:
        with whole_or_absent(path) as temporary:
            temporary.write_text(_page(data), encoding="utf-8")
    except OSError as error:
        raise RunDirectoryError(f"{str(path)!r}: expected a file that can be written ({error.strerror}).") from None
    return sum(map(len, held.values()))


def _told(runs: Sequence[Run], held: Mapping[str, Array], count: int) -> str:
    """Say what a report has of each run."""
    told = []
    for run in runs:
        episodes, places = run.index.episodes, held[run.label]
        steps, there = len(np.unique(episodes.step[places])), len(np.unique(episodes.step))
        whole = f"each of {steps} steps" if steps == there else f"{steps} of {there} steps"
        told.append(
            f"of {run.label}, {len(places):,} of {len(episodes):,}, the first groups of {whole}, up to {count} episodes"
        )
    return "; ".join(told)


def _chosen(episodes: Episodes, count: int) -> Array:
    """Return where the episodes are that a report has: whole groups, the first ones of each step.

    If that would be more than `MOST`, steps are left out, at even distances.
    """
    chosen = []
    steps, played = np.unique(episodes.step, return_counts=True)
    kept = max(1, min(len(steps), MOST // min(count, max(played, default=1))))
    for step in steps[np.linspace(0, len(steps) - 1, kept).astype(int)] if len(steps) else ():
        places = np.flatnonzero(episodes.step == step)
        _, first, sizes = np.unique(episodes.group[places], return_index=True, return_counts=True)
        taken = 0
        for group in np.argsort(first):
            if taken and taken + sizes[group] > count:
                break
            taken += sizes[group]
            chosen.append(places[episodes.group[places] == episodes.group[places[first[group]]]])
    return np.concatenate(chosen) if chosen else np.zeros(0, np.int64)


def _pages(run: Run, places: Array) -> list[dict[str, Any]]:
    """Return what the pages of episodes have, or why they cannot be read."""
    episodes, pieces, found = run.index.episodes, Pieces(run), []
    for file in np.unique(episodes.file[places]):
        chosen = places[episodes.file[places] == file]
        try:
            found += episode_pages(run, episodes, chosen, pieces)
        except DataError as error:
            found += [{**summary_of(run.label, episodes, int(at)), "error": visible(str(error))} for at in chosen]
    return found


def _page(data: dict[str, Any]) -> str:
    """Return the page, whose rules allow its own script and style and nothing else."""
    script, style = content("view.js"), content("style.css")
    rules = f"{RULES}; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:"
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")  # no </script> ends it
    page = content("index.html")
    for marked, instead in (
        ('<link rel="stylesheet" href="style.css">', f"<style>{style}</style>"),
        ('<script src="view.js" defer></script>', ""),
        ("<!-- rules -->", f'<meta http-equiv="Content-Security-Policy" content="{rules}">'),
        ("</body>", f'<script type="application/json" id="data">{text}</script><script>{script}</script></body>'),
    ):
        before, found, after = page.partition(marked)
        assert found, f"index.html has no {marked}"
        page = before + instead + after
    return page


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

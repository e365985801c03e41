"""One episode for its page: messages, scores, tokens and what they can be coloured by."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmgym.data.trajectories import read_shard, trajectory_in
from llmgym.rollout.trajectory import Trajectory
from llmgym.view.advantages import FROM_A_GROUP, from_a_group
from llmgym.view.colours import colours, of_group
from llmgym.view.index import Array, Episodes, expected
from llmgym.view.metrics import mean, number
from llmgym.view.pieces import Pieces
from llmgym.view.runs import Run
from llmgym.visible import visible

_MOST_SIBLINGS = 64  # that a group's page shows


def summary_of(run: str, episodes: Episodes, at: int) -> dict[str, Any]:
    """Return what a table says of an episode, from the columns in memory."""
    return {
        "run": run,
        "step": int(episodes.step[at]),
        "index": int(episodes.index[at]),
        "task": episodes.task(at),
        "group": int(episodes.group[at]),
        "seat": int(episodes.seat[at]),
        "score": number(episodes.score[at]),
        "success": number(episodes.success[at]),
        "ending": visible(episodes.ending[at]),
        "turns": int(episodes.turns[at]),
        "length": int(episodes.length[at]),
        "parts": {visible(name): number(values[at]) for name, values in episodes.parts.items()},
    }


def episode_pages(run: Run, episodes: Episodes, places: Array, pieces: Pieces) -> list[dict[str, Any]]:
    """Return all there is of some episodes of one file.

    Raises:
        DataError: Their file holds something else by now.
    """
    with expected("episodes", _file(episodes, int(places[0]))):
        rows = _rows(episodes, places)
        return [_page(run, episodes, int(at), row, pieces) for at, row in zip(places, rows, strict=True)]


def _page(run: Run, episodes: Episodes, at: int, row: Mapping[str, Any], pieces: Pieces) -> dict[str, Any]:
    trajectory = trajectory_in(row, int(episodes.row[at]))
    told = _told(run, episodes, at, trajectory)
    siblings = episodes.siblings(at)
    step = next((one for one in reversed(run.metrics.steps) if one.get("step") == told["step"]), {})
    return {
        **told,
        "tokens": trajectory.tokens,
        "pieces": pieces.of(trajectory.tokens),
        "sampled": _spans(trajectory.mask),
        "row_starts": trajectory.row_starts,
        "colours": colours(row, at, episodes, run.config),
        "siblings": len(siblings),
        "group_mean": mean(episodes.score[siblings]),
        "formula": _formula(run),
        "times": {name: value for name, value in step.items() if name.startswith("time/") or name.endswith("seconds")},
    }


def group_page(run: Run, episodes: Episodes, at: int) -> dict[str, Any]:
    """Return the siblings of an episode, itself among them, with their advantages as far as they are known."""
    siblings = episodes.siblings(at)
    shown = siblings[:_MOST_SIBLINGS]
    with expected("episodes", _file(episodes, at)):
        rows = _rows(episodes, shown)
        told = [
            _told(run, episodes, int(place), trajectory_in(row, int(episodes.row[place])))
            for place, row in zip(shown, rows, strict=True)
        ]
    estimator = from_a_group(run.config)
    if estimator is not None:
        for one, advantage in zip(told, of_group(estimator, at, episodes)[: len(told)], strict=True):
            one["advantage"] = number(advantage)
    return {"episodes": told, "count": len(siblings), "formula": _formula(run)}


def _formula(run: Run) -> str | None:
    """Return how an advantage is computed in a run, if it follows from the group."""
    estimator = from_a_group(run.config)
    return None if estimator is None else f"{FROM_A_GROUP[estimator]} (--advantage {estimator})"


def last_replies(episodes: Episodes, places: Array) -> list[str]:
    """Return the last replies of episodes, for the lines of a table."""
    found = []
    with expected("messages", _file(episodes, int(places[0]))):
        for row in _rows(episodes, places, ("messages",)):
            replies = [one.get("content") or "" for one in row["messages"] or () if one.get("role") == "assistant"]
            found.append(visible(replies[-1][:400]) if replies else "")
    return found


def _file(episodes: Episodes, at: int) -> Path:
    return episodes.files[int(episodes.file[at])]


def _rows(episodes: Episodes, places: Array, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Return the rows of episodes, reading each file once."""
    found: dict[int, dict[str, Any]] = {}
    for file in np.unique(episodes.file[places]):
        chosen = places[episodes.file[places] == file]
        table = read_shard(episodes.files[file], columns, episodes.row[chosen].tolist())
        found.update(zip(chosen.tolist(), table.to_pylist(), strict=True))
    return [found[int(place)] for place in places]


def _told(run: Run, episodes: Episodes, at: int, trajectory: Trajectory) -> dict[str, Any]:
    """Return what is said of an episode, and in it."""
    return {
        **summary_of(run.label, episodes, at),
        "score_error": None if trajectory.score_error is None else visible(trajectory.score_error),
        "score_kind": visible(trajectory.score_kind),
        "messages": [
            {
                "role": visible(one.role),
                "name": None if one.name is None else visible(one.name),
                "content": visible(one.content),
                "calls": [visible(f"{call.name}({dict(call.arguments)})") for call in one.calls],
            }
            for one in trajectory.messages
        ],
        "replies": [
            {
                "start": reply.start,
                "stop": reply.stop,
                "tokens": reply.written if trajectory.without_tokens else reply.stop - reply.start,
                "finish_reason": visible(reply.finish_reason),
                "weight_version": reply.weight_version,
                "reward": number(reply.reward),
            }
            for reply in trajectory.replies
        ],
    }


def _spans(mask: Sequence[bool]) -> list[tuple[int, int]]:
    """Return where tokens were sampled, as starts and stops.

    Examples:
        >>> _spans([False, True, True, False, True])
        [(1, 3), (4, 5)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.array(mask, dtype=np.int8), [0]]))).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))

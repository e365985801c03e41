"""The package's tasks, with the calls that solve them, which it has as Python expressions."""

import ast
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmgym.envs.adapters.bfcl.package import BACKENDS, DATA
from llmgym.errors import DataError


@dataclass(frozen=True)
class RightCall:
    """A call of a solution: a function, the values without a name, and those with one."""

    name: str
    values: Sequence[Any]
    named: Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """A task of the package.

    Attributes:
        id: Of the task.
        requests: What the user asks, one after another; empty where functions are added instead.
        right: The calls that fulfil each request.
        functions: What the package says of each function.
        withheld: Functions that are added later, and with which request.
        classes: Whose objects the functions belong to.
        config: Their states at the beginning.
        long_context: Whether they say much more than is needed.
    """

    id: str
    requests: Sequence[str]
    right: Sequence[Sequence[RightCall]]
    functions: Sequence[Mapping[str, Any]]
    withheld: Mapping[str, int]
    classes: Sequence[str]
    config: Mapping[str, Any] = field(repr=False)
    long_context: bool


@functools.cache
def tasks_of(category: str) -> list[Task]:
    """Return the tasks of a category, in the package's order."""
    rows = _lines(DATA / f"BFCL_v4_{category}.json")
    solutions = _lines(DATA / "possible_answer" / f"BFCL_v4_{category}.json")
    tasks = []
    for row, solution in zip(rows, solutions, strict=True):
        files = [BACKENDS.MULTI_TURN_FUNC_DOC_FILE_MAPPING[name] for name in row["involved_classes"]]
        right = [[_right_call(text) for text in calls] for calls in solution["ground_truth"]]
        withheld = {name: int(request) for request, names in row.get("missed_function", {}).items() for name in names}
        tasks.append(
            Task(
                id=row["id"],
                requests=["\n".join(message["content"] for message in request) for request in row["question"]],
                right=right,
                functions=[one for file in files for one in _lines(DATA / "multi_turn_func_doc" / file)],
                withheld={name: request for name, request in withheld.items() if not _calls(right[:request], name)},
                classes=row["involved_classes"],
                config=row["initial_config"],
                long_context="long_context" in category,
            )
        )
    return tasks


def _calls(right: Sequence[Sequence[RightCall]], name: str) -> bool:
    """Tell whether a solution calls a function: one task's does before it is added, so it is not withheld there."""
    return any(call.name == name for calls in right for call in calls)


@functools.cache
def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _right_call(text: str) -> RightCall:
    """Return a call that is written in Python; only literals can be in it."""
    call = ast.parse(text.strip(), mode="eval").body
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise DataError(f"bfcl: expected a call of a function by its name in a solution, got {text!r:.200}")
    values = [ast.literal_eval(one) for one in call.args]
    return RightCall(call.func.id, values, {str(one.arg): ast.literal_eval(one.value) for one in call.keywords})

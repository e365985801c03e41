"""A scorer that runs the code of the last reply with the tests of its row."""

import contextlib
import os
import threading
from collections.abc import Mapping
from typing import Any

from llmgym.envs.code.runner import RunnerError, UnfitTestError, passes
from llmgym.envs.reading import last_block
from llmgym.errors import DataError
from llmgym.scorers.json_schema import strict
from llmgym.scorers.text import last_reply
from llmgym.types import Episode, Score

_MOST_CHARS = 100_000  # of code
_PLACES = threading.BoundedSemaphore(os.cpu_count() or 1)  # so that tests do not take one another's time


def code(episode: Episode) -> Score:
    """Run the last block of code of the last reply with ``episode.task["tests"]``; return the share of tests that pass.

    The tests are Python that calls the code's functions by name, with asserts, or a list of such texts, which may be
    written as JSON. Each runs in a process of its own, beside one for the code, so the code can neither see nor change
    it: values go from one to the other as plain data. No block of code is 0. No tests, or some that cannot be run with
    any code, are a missing score.
    """
    tests = _tests(episode)
    if not tests:
        return Score(None, error="its row has no tests to run")
    if not all(isinstance(one, str) for one in tests):
        return Score(None, error=f"tests are a text of Python, or a list of such texts, got {tests!r:.80}")
    for test in tests:
        try:
            compile(test, "tests", "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return Score(None, error=f"a test of its row is no Python: {error}")
    block = last_block(last_reply(episode))
    if block is None or len(block) > _MOST_CHARS:
        return Score(0.0)
    with _PLACES:
        try:
            return Score(sum(passes(block, test) for test in tests) / len(tests))
        except (RunnerError, UnfitTestError) as error:
            return Score(None, error=str(error))


code.blocking = True  # type: ignore[attr-defined]  # it waits for processes


def _tests(episode: Episode) -> list[Any]:
    """Return the tests of an episode's row, which should be texts.

    Raises:
        DataError: The task has no place for them.
    """
    task = episode.task
    if not isinstance(task, Mapping) or "tests" not in task:
        columns = f"the columns {', '.join(map(str, task))}" if isinstance(task, Mapping) else type(task).__name__
        raise DataError(f"The scorer 'code' expects episode.task['tests'], got {columns}.")
    tests = task["tests"]
    if hasattr(tests, "tolist"):  # of NumPy
        tests = tests.tolist()
    if isinstance(tests, str) and tests.lstrip().startswith("["):  # a list in a column of texts
        with contextlib.suppress(ValueError):
            tests = strict(tests)
    tests = tests if isinstance(tests, list | tuple) else [tests]
    return [one for one in tests if one is not None and not (isinstance(one, str) and not one.strip())]

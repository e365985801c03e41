"""Code of replies, run with the tests of a row: what passes is what computes, and nothing talks its way to a score."""

import math
import subprocess
import sys
import time
from typing import Any

import hostile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmgym.envs.code import child, runner
from llmgym.envs.waiting import settled
from llmgym.errors import DataError
from llmgym.scorers import ask, resolve_scorer
from llmgym.types import Episode, Score, Turn

TESTS = "assert solve(2) == 4\nassert solve(3) == 9"
GOOD = "def solve(x):\n    return x * x"


def block(code: str) -> str:
    return f"First:\n```python\nnonsense\n```\nSo:\n```python\n{code}\n```\nDone."


def asked(reply: str, tests: Any) -> Score:
    episode = Episode(turns=[Turn("?", block("1")), Turn("?", reply)], task={"tests": tests})
    found: Score = settled(ask(resolve_scorer("code"), [episode], [0]))[0]
    return found


def told(code: str, tests: Any = TESTS) -> float:
    found = asked(block(code), tests)
    assert found.value is not None, found.error
    return found.value


def test_code_that_computes_what_tests_expect_earns() -> None:
    assert told(GOOD) == 1.0
    assert (
        told(GOOD, ["assert solve(2) == 4", "assert solve(2) == 5", "assert solve('a') == 1", "assert solve(0) == 0"])
        == 0.5
    )
    assert told(GOOD, np.array(["assert solve(2) == 4", "assert solve(2) == 5"], dtype=object)) == 0.5
    assert told("def f(x): return x", TESTS) == 0.0


def test_the_last_block_of_code_of_the_last_reply_counts() -> None:
    for reply in ("", "I cannot.", f"```python\n{GOOD}", block(GOOD) + "```text\nno code\n```", GOOD):
        assert asked(reply, TESTS).value == 0.0, reply
    assert asked(block(GOOD).replace("```python", "```"), TESTS).value == 1.0
    assert asked(block(GOOD + " " * 100_000), TESTS).value == 0.0


FORGERIES = {
    "a value that equals all": "class X:\n    def __eq__(self, other): return True\ndef solve(x): return X()",
    "a number that equals all": "class X(int):\n    def __eq__(self, other): return True\ndef solve(x): return X(1)",
    "a list that equals all": "class X(list):\n    def __eq__(self, other): return True\ndef solve(x): return X()",
    "the process ends well": "import os\ndef solve(x): os._exit(0)",
    "the process ends at once": "import os\nos._exit(0)",
    "SystemExit": "def solve(x): raise SystemExit(0)",
    "SystemExit at once": "raise SystemExit",
    "StopIteration": "def solve(x): raise StopIteration",
    "no AssertionError": (
        "import builtins\nbuiltins.AssertionError = ValueError\nAssertionError = None\n"
        "def solve(x): return 1"
    ),
    "no builtins": (
        "import builtins\nfor name in list(vars(builtins)):\n    setattr(builtins, name, None)\n"
        "def solve(x): return 1"
    ),
    "a name of Python's own": "all = bool = len = lambda *x: True\ndef solve(x): return 1",
    "names of the test's module": (
        "__builtins__ = {}\n__name__ = 'test'\ndef __assert__(x): return True\n"
        "def solve(x): return 1"
    ),
    "names that are none": (
        "globals()[1] = len\nglobals()['a b'] = len\nglobals()['import'] = len\n"
        "def solve(x): return 1"
    ),
    "a verdict, written everywhere": (
        "import os\ndef solve(x):\n    for stream in range(3, 30):\n"
        "        try: os.write(stream, b'{\"value\": true}\\n' * 5)\n"
        "        except OSError: pass\n    return 1"
    ),
    "an answer of a tester": (
        "import os\nfor stream in range(3, 30):\n"
        "    try: os.write(stream, b'{\"unsent\": \"x\"}\\n{\"call\": \"solve\"}\\n')\n"
        "    except OSError: pass\ndef solve(x): return 1"
    ),
    "a tag that is none": (
        "import json\njson.dumps = lambda *a, **b: '{\"value\": {\"evil\": []}}'\n"
        "def solve(x): return 1"
    ),
    "the frames above": (
        "import sys\ndef solve(x):\n    frame = sys._getframe()\n    while frame:\n        frame.f_locals.update(x=1)\n"
        "        for name in ('test', 'first', 'asked'):\n"
        "            if name in frame.f_locals: return frame.f_locals[name]\n"
        "        frame = frame.f_back\n    return 1"
    ),
    "a file": "def solve(x): return open('/etc/passwd').read()",
    "a value deep within": "def solve(x):\n    value = []\n    for _ in range(900): value = [value]\n    return value",
    "a value too large": "def solve(x): return 'a' * 1_000_000",
    "all memory": "def solve(x): return 'a' * 10**10",
    "recursion": "def solve(x): return solve(x)",
    "a generator": "def solve(x): yield 4",
    "a coroutine": "async def solve(x): return 4",
    "no syntax": "def solve(x) return 4",
    "a NUL": "def solve(x): return 4\0",
    "lone surrogates": "def solve(x): return '\ud800'",
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
def test_no_forgery_earns(forgery: str) -> None:
    assert told(FORGERIES[forgery]) == 0.0
    assert told(FORGERIES[forgery], "assert all(solve(x) == y for x, y in [(2, 4), (3, 9)])") == 0.0


def test_a_test_that_hangs_costs_itself_alone() -> None:
    code = "def solve(x):\n    while x == 3: pass\n    return x * x"
    start = time.perf_counter()
    assert told(code, ["assert solve(2) == 4", "assert solve(3) == 9", "assert solve(4) == 16"]) == pytest.approx(2 / 3)
    assert time.perf_counter() - start < 15.0


def test_no_test_sees_what_another_one_left() -> None:
    code = "calls = []\ndef solve(x):\n    calls.append(x)\n    return len(calls)"
    assert told(code, ["assert solve(1) == 1"] * 3) == 1.0


def test_exceptions_can_be_tested_by_name() -> None:
    test = "try:\n    solve(1)\nexcept ValueError:\n    pass\nelse:\n    raise AssertionError"
    assert told("def solve(x): raise ValueError('no')", test) == 1.0
    assert told("def solve(x): raise KeyError('no')", test) == 0.0
    assert (
        told("class Mine(Exception): pass\ndef solve(x): raise Mine", test.replace("ValueError", "RuntimeError")) == 1.0
    )
    assert told("def solve(x): return 1", test) == 0.0


def test_tests_are_python_with_functions_keywords_and_imports() -> None:
    test = """
import math
def check(candidate):
    for x in range(10):
        assert math.isclose(candidate(x, scale=2), 2 * x)
check(solve)
"""
    assert told("def solve(x, scale=1): return x * scale", test) == 1.0
    assert told("def solve(x, scale=1): return x", test) == 0.0


def lists_and_so_on(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.text(max_size=3) | st.integers()
    return st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(keys, inner, max_size=3),
        st.sets(keys, max_size=3),
        st.frozensets(st.booleans()),
    )


huge = st.sampled_from([10**4000, -(2**70), math.inf, -math.inf])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=5) | huge
plain = st.recursive(scalars, lists_and_so_on, max_leaves=8)


@given(plain)
def test_plain_data_arrives_as_it_was_sent(value: Any) -> None:
    assert exactly(child.unpack(runner.json.loads(runner.json.dumps(child.pack(value)))), value)


def exactly(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(exactly, one, other))
    if isinstance(one, dict):
        return exactly([*one.items()], [*other.items()])
    return bool(one == other)


def test_values_go_to_code_and_back() -> None:
    shown = "[(1, {2, 3}, {4: 'a'}), float('inf'), b'x', 10**5000, None, True, frozenset([1])]"
    assert (
        told("def solve(x): return x", f"value = {shown}\nassert solve(value) == value and type(solve(True)) is bool")
        == 1.0
    )


@pytest.mark.parametrize("tests", [None, "", " \n", [], [None], ["", None]])
def test_a_row_without_tests_has_no_score(tests: Any) -> None:
    found = asked(block(GOOD), tests)
    assert (found.value, found.error) == (None, "its row has no tests to run")


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ("assert solve(2) ==", "a test of its row is no Python"),
        ("assert 1\0", "a test of its row is no Python"),
        ("import socket\nassert solve(2) == 4", "it imports a module that cannot be loaded here"),
        ("assert solve(lambda x: x) == 1", "solve is called with function, which is no plain data"),
        ("assert solve(object()) == 1", "solve is called with object, which is no plain data"),
    ],
)
def test_tests_that_no_code_can_pass_are_a_missing_score(tests: str, reason: str) -> None:
    found = asked(block(GOOD), ["assert solve(2) == 4", tests])
    assert found.value is None
    assert reason in str(found.error)


@pytest.mark.parametrize("tests", [5, {"a": 1}, [1], "[1, 2]"])
def test_tests_of_another_kind_cost_the_score_of_their_row(tests: Any) -> None:
    assert "tests are a text of Python" in str(asked(block(GOOD), tests).error)


def test_a_list_of_tests_may_be_written_as_json() -> None:
    assert asked(block(GOOD), '["assert solve(2) == 4", "assert solve(2) == 5"]').value == 0.5
    assert asked(block(""), '["assert solve(2) == 4"]').value == 0.0


@pytest.mark.parametrize("task", [None, {"answer": "5"}, "5"])
def test_rows_that_have_no_place_for_tests_are_refused(task: Any) -> None:
    with pytest.raises(DataError, match=r"expects episode\.task\['tests'\], got"):
        settled(ask(resolve_scorer("code"), [Episode(turns=[Turn("a", block("1"))], task=task)], [0]))


def test_a_process_that_cannot_be_started_is_a_missing_score(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError("too many processes")

    monkeypatch.setattr(subprocess, "Popen", fail)
    assert f"{sys.executable} cannot be started: too many processes" in str(asked(block(GOOD), TESTS).error)


def test_many_episodes_are_scored_alike_at_once() -> None:
    episodes = [
        Episode(turns=[Turn("?", block(f"def solve(x): return {i}"))], task={"tests": "assert solve(1) == 3"})
        for i in range(6)
    ]
    found = settled(ask(resolve_scorer("code"), episodes, [0] * 6))
    assert [score.value for score in found] == [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]


@settings(max_examples=25)
@given(hostile.texts())
def test_any_text_is_0(text: str) -> None:
    assert asked(text, TESTS).value == 0.0
    assert asked(block(text), TESTS).value == 0.0


def test_ten_megabytes_take_no_time() -> None:
    start = time.perf_counter()
    for text in ("```" * 3_000_000, "```python\n" * 1_000_000, block("x = 1\n" * 1_700_000)):
        assert asked(text, TESTS).value == 0.0
    assert time.perf_counter() - start < 10.0

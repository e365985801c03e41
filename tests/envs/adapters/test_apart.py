"""Functions are called in a process of their own, which a failure does not take along."""

import pytest

from llmgym.envs.adapters.apart import Apart, apart


def test_a_function_returns_what_it_does_here() -> None:
    assert Apart("math").call("hypot", 3, 4, limit=10) == 5.0


def test_sets_have_the_same_order_there_whatever_this_process_has() -> None:
    assert Apart("os").call("getenv", "PYTHONHASHSEED", limit=10) == "0"


def test_an_exception_is_reported_and_the_process_lives_on() -> None:
    process = Apart("math")
    with pytest.raises(RuntimeError, match=r"math.sqrt: ValueError"):
        process.call("sqrt", -1, limit=10)
    assert process.call("sqrt", 4, limit=10) == 2.0


def test_a_function_that_takes_too_long_is_ended_and_the_next_call_starts_anew() -> None:
    process = Apart("time")
    with pytest.raises(TimeoutError, match=r"time.sleep took longer than 0.2 s"):
        process.call("sleep", 60, limit=0.2)
    assert process.call("sleep", 0, limit=10) is None


def test_a_process_that_ends_is_reported_as_such() -> None:
    process = Apart("os")
    with pytest.raises(RuntimeError, match="ended with exit code 3"):
        process.call("_exit", 3, limit=10)


def test_what_packages_print_does_not_get_between_the_answers() -> None:
    assert Apart("builtins").call("print", "noise", limit=10) is None


def test_one_process_serves_all_that_call_a_module() -> None:
    assert apart("math") is apart("math")

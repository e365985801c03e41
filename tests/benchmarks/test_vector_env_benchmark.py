"""The benchmark of vector environments: its sides do the same, and its verdicts follow from the figures."""

import pytest

from benchmarks import vector_env
from benchmarks.vector_env import SIDES, claims, measure

HERE = [side for side in SIDES if not side.startswith("GEM")]
"""The sides that need no environment of a peer."""


def test_sides_that_do_the_same_are_measured() -> None:
    found = measure(HERE, repeats=2, steps=20)
    assert list(found) == HERE
    assert all(len(rates) == 2 and min(rates) > 0 for rates in found.values())


def test_a_side_that_does_something_else_is_no_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_env.TextEcho, "begin", lambda self: "Hello.")
    with pytest.raises(RuntimeError, match="of a TextEnv has other observations"):
        measure(HERE, repeats=1, steps=1)


def test_ratios_are_those_of_repeats_that_ran_after_each_other() -> None:
    ours, gymnasiums, gems = list(SIDES)[:3]
    found = {ours: [2e6, 1e6, 0.5e6], gymnasiums: [1e6, 0.5e6, 0.1e6], gems: [2e6, 1e6, 0.5e6]}
    speed, by_gymnasiums, by_gems = claims(found)
    assert (speed.measured, speed.kept) == (1.0, True)
    assert (by_gymnasiums.measured, by_gymnasiums.kept) == (2.0, True)
    assert (by_gems.measured, by_gems.kept) == (1.0, False)

"""Evaluations count what is missing as failed and know how sure they are."""

import pytest

from llmgym.evaluate import summarise
from llmgym.rollout.trajectory import Trajectory
from llmgym.statistics import wilson_interval


def trajectory(score: float | None, **parts: float) -> Trajectory:
    return Trajectory(seed=0, group=0, score=score, parts=parts, ending="terminated")


def test_success_reward_and_parts_are_means() -> None:
    seen = summarise([trajectory(1.0, success=1.0, json_ok=1.0), trajectory(0.2, success=0.0, json_ok=0.0)])
    assert (seen.episodes, seen.success, seen.reward, seen.parts["json_ok"]) == (2, 0.5, 0.6, 0.5)


def test_a_missing_score_is_a_failure_and_no_reward() -> None:
    seen = summarise([trajectory(1.0, success=1.0), trajectory(None)])
    assert (seen.success, seen.reward, seen.missing) == (0.5, 1.0, 1)


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    [(0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (175, 500, (0.3095, 0.3928))],
)
def test_intervals_are_wilsons(successes: int, trials: int, expected: tuple[float, float]) -> None:
    assert wilson_interval(successes, trials) == pytest.approx(expected, abs=1e-4)


def test_an_interval_has_its_proportion_in_it_at_the_ends_too() -> None:
    for trials in range(1, 300):
        assert wilson_interval(0, trials)[0] == 0.0
        assert wilson_interval(trials, trials)[1] == 1.0

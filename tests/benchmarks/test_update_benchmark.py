"""The update benchmark: its sides compute the same update, and its verdicts follow from the figures."""

import json
from pathlib import Path

import pytest

from benchmarks.model import triage, write_model
from benchmarks.processes import Process
from benchmarks.update import Measurement, claims, episodes_of
from benchmarks.updates.episodes import Episodes, Step


@pytest.mark.slow
@pytest.mark.long
def test_all_sides_find_the_same_loss_and_without_an_entropy_bonus_the_same_gradient(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    episodes = episodes_of(triage("few", (3, 20), prompts=3, siblings=4), tmp_path / "model")
    assert Episodes.from_json(episodes.to_json()) == episodes
    steps = []
    for side in ("ours", "loop", "torchrl_grpo", "torchrl_grpo_defaults"):
        log = tmp_path / f"{side}.log"
        with Process("benchmarks.updates.worker", side, tmp_path / "model", "float32", log) as running:
            answers = [running.ask(episodes.to_json())[0] for _ in range(2)]
        first, again = (Step(**json.loads(answer)) for answer in answers)
        assert first.loss == pytest.approx(again.loss, abs=1e-7)
        steps.append(first)
    for other in steps[1:]:
        assert other.loss == pytest.approx(steps[0].loss, abs=1e-5)
    for other in steps[1:3]:
        assert other.grad_norm == pytest.approx(steps[0].grad_norm, rel=1e-4)


def measurement(side: str, seconds: list[float], loss: float = 0.5) -> Measurement:
    steps = [Step(loss, 1.0, value) for value in seconds]
    return Measurement(side, "even", loaded_mib=60.0, peak_mib=100.0, steps=steps, cpu_seconds=seconds)


def test_a_promise_is_judged_by_medians_and_a_loss_that_differs_breaks_it() -> None:
    time, memory, loss = claims([measurement("ours", [1.0, 9.0, 1.0]), measurement("trl_grpo", [2.0], loss=0.51)])
    assert (time.measured, time.kept) == (0.5, True)
    assert memory.kept
    assert not loss.kept

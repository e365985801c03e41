"""A whole step is a rollout and an update of the same episodes, judged beside TRL's."""

from dataclasses import asdict
from typing import Any

import pytest

from benchmarks import rollout, update
from benchmarks.processes import Outcome
from benchmarks.results import Claim, Measurement
from benchmarks.step import claims, whole_steps
from benchmarks.updates.episodes import Step


def rolled(side: str, seconds: list[float], peak_mib: float) -> Measurement:
    outcomes = [Outcome(value, cpu_seconds=value, peak_mib=peak_mib) for value in seconds]
    return Measurement(side, "float32", "even", 100, loaded_mib=60.0, outcomes=outcomes)


def updated(side: str, seconds: list[float], peak_mib: float) -> update.Measurement:
    steps = [Step(0.5, 1.0, value) for value in seconds]
    return update.Measurement(side, "even", loaded_mib=60.0, peak_mib=peak_mib, steps=steps, cpu_seconds=seconds)


def figures(cells: list[Any], **rest: Any) -> dict[str, Any]:
    measurements = [asdict(cell) | {"median_seconds": cell.seconds} for cell in cells]
    return {"processor": "one", "model": "a random Qwen2", "measurements": measurements} | rest


ROLLOUTS = figures([rolled("ours", [1.0, 9.0, 1.0], 300.0), rolled("trl_grpo", [4.0], 500.0)])
UPDATES = figures(
    [updated("ours", [2.0], 200.0), updated("trl_grpo", [4.0], 1000.0), updated("loop", [3.0], 100.0)],
    dtype="float32",
    sampled={"even": 100},
)


def test_times_are_added_and_the_higher_peak_counts() -> None:
    ours, theirs = whole_steps(ROLLOUTS, UPDATES)
    assert (ours.side, ours.seconds, ours.cpu_seconds, ours.peak_mib) == ("ours", 3.0, 3.0, 300.0)
    assert (theirs.side, theirs.seconds, theirs.peak_mib) == ("trl_grpo", 8.0, 1000.0)


def test_a_step_is_promised_half_of_trls_time_and_no_more_than_its_memory() -> None:
    time, memory = claims(whole_steps(ROLLOUTS, UPDATES))
    assert (time.measured, time.by_cpu, time.kept) == (3 / 8, 3 / 8, True)
    assert (memory.measured, memory.kept) == (0.3, True)
    slow = figures([rolled("ours", [4.0], 1600.0), rolled("trl_grpo", [4.0], 500.0)])
    assert [claim.kept for claim in claims(whole_steps(slow, UPDATES))] == [False, False]


def test_a_step_with_checkpointing_as_trls_is_promised_half_of_its_memory() -> None:
    updates = figures(
        [updated("ours_checkpointing", [2.5], 600.0), updated("trl_grpo", [4.0], 1000.0)],
        dtype="float32",
        sampled={"even": 100},
    )
    time, memory = claims(whole_steps(ROLLOUTS, updates))
    assert (time.measured, time.kept) == (3.5 / 8, True)  # the rollout is that of llmgym without it
    assert (memory.measured, memory.kept) == (0.6, False)


@pytest.mark.parametrize("other", [{"sampled": {"even": 800}}, {"model": "another"}, {"processor": "two"}])
def test_figures_of_different_work_models_or_machines_are_not_added(other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Expected"):
        whole_steps(ROLLOUTS, UPDATES | other)


def test_files_in_the_other_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected what benchmarks\.rollout writes with --json"):
        whole_steps(UPDATES, ROLLOUTS)
    with pytest.raises(ValueError, match=r"Expected what benchmarks\.update writes with --json"):
        whole_steps(ROLLOUTS, ROLLOUTS)


def test_figures_of_different_types_are_not_added() -> None:
    assert whole_steps(ROLLOUTS, UPDATES | {"dtype": "bfloat16"}) == []


@pytest.mark.parametrize(
    ("peer", "products", "kept"),
    [(4.0, 0.1, True), (3.0, 1.4, True), (3.0, 1.3, False)],  # half of the peer's, 1.5 of the products', neither
)
def test_a_rollout_is_held_to_the_fastest_peer_or_the_products(peer: float, products: float, kept: bool) -> None:
    cells = [rolled("ours", [2.0], 1.0), rolled("generate", [9.0], 1.0), rolled("sglang_cpu", [peer], 1.0)]
    cells += [rolled("products", [products], 1.0), rolled("trl_grpo", [8.0], 1.0)]
    (claim,) = _held(cells)
    assert "SGLang" in claim.text
    assert claim.kept == kept
    assert _held(cells[:-1]) == []  # a peer that was left out may be the fastest


def _held(cells: list[Measurement]) -> list[Claim]:
    answers = rollout.claims({(cell.work, cell.dtype, cell.side): cell for cell in cells})
    return [claim for claim in answers if "1.5 of the products'" in claim.text]

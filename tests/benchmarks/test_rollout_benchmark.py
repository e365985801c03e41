"""The rollout benchmark: its sides do the work they are given, and its verdicts follow from the figures."""

from pathlib import Path

import pytest

from benchmarks.model import cut, many_turns, triage, write_model
from benchmarks.processes import Outcome, Side
from benchmarks.results import Claim, Measurement, measurement_table
from benchmarks.rollout import claims
from benchmarks.work import Work


@pytest.mark.slow
@pytest.mark.parametrize("side", ["ours", "generate", "collector"])
def test_a_side_samples_the_lengths_it_is_asked_for(side: str, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    lengths = (48, 48) if side == "collector" else (40, 56)
    with Side(side, tmp_path / "model", "float32", tmp_path / "log") as running:
        assert running.run(triage("few", lengths, prompts=2)).seconds > 0  # or it raises


def test_siblings_share_their_prompt_and_nothing_else_is_shared() -> None:
    work = triage("few", (8, 96), prompts=3, siblings=2)
    assert work.prompts[0] == work.prompts[1] != work.prompts[2] == work.prompts[3]
    assert cut(work).prompts[4] == work.prompts[4][-100:]
    assert Work.from_json(work.to_json()) == work


def test_many_turns_have_eight_tokens_sampled_and_eight_observed() -> None:
    work = many_turns(32)
    assert (work.turns, len(work.bridge), work.sampled) == (32, 8, 128 * 32 * 8)


def measurement(side: str, work: str, seconds: list[float], dtype: str = "float32", sampled: int = 100) -> Measurement:
    outcomes = [Outcome(value, cpu_seconds=value, peak_mib=100.0) for value in seconds]
    return Measurement(side, dtype, work, sampled, loaded_mib=60.0, outcomes=outcomes)


def test_a_promise_is_judged_by_medians() -> None:
    cells = [measurement("ours", "even", [1.0, 9.0, 1.0]), measurement("generate", "even", [1.9, 1.9, 50.0])]
    (claim,) = claims({(cell.work, cell.dtype, cell.side): cell for cell in cells})
    assert claim == Claim(claim.text, 2.0, 1.9, at_least=True)
    assert not claim.kept


def test_scaling_is_judged_by_token() -> None:
    cells = [measurement("ours", "4 turns", [1.0]), measurement("ours", "32 turns", [9.0], sampled=800)]
    (claim,) = claims({(cell.work, cell.dtype, cell.side): cell for cell in cells})
    assert claim.measured == pytest.approx(9 / 8)
    assert claim.kept


def test_the_table_compares_a_side_with_llmgym_in_the_same_type() -> None:
    cells = [
        measurement("ours", "even", [2.0]),
        measurement("ours", "even", [1.0], dtype="bfloat16"),
        measurement("generate", "even", [3.0], dtype="bfloat16"),
    ]
    last = measurement_table(cells, {"ours": "llmgym", "generate": "generate"}).splitlines()[-1]
    assert last.split(" | ")[3:5] == ["3.00", "3.00"]

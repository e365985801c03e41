"""The rollout benchmark: its sides do the work they are given, and its verdicts follow from the figures."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from benchmarks.model import cut, many_turns, prepare, triage, write_model
from benchmarks.processes import Outcome, Side
from benchmarks.results import Claim, Measurement, measurement_table
from benchmarks.rollout import claims
from benchmarks.sides import products
from benchmarks.work import Work


@pytest.mark.slow
@pytest.mark.parametrize("side", ["ours", "generate", "collector"])
def test_a_side_samples_the_lengths_it_is_asked_for(side: str, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    lengths = (48, 48) if side == "collector" else (40, 56)
    with Side(side, tmp_path / "model", "float32", tmp_path / "log") as running:
        assert running.run(triage("few", lengths, prompts=2)).seconds > 0  # or it raises


def test_the_products_are_of_every_token_that_an_engine_has_to_run_once(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    work = triage("few", (2, 5), prompts=2, siblings=3)
    rollout = products.load(str(tmp_path / "model"), "float32")
    with FlopCounterMode(display=False) as counted:
        replies = rollout(work)
    assert [[len(reply) for reply in episode] for episode in replies] == work.lengths
    lm = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    head = lm.get_output_embeddings().weight
    matrices = [module.weight.numel() for module in lm.modules() if isinstance(module, torch.nn.Linear)]
    tokens = len(work.prompts[0]) + len(work.prompts[3]) + len(work.prompts) * len(work.bridge) + work.sampled
    expected = 2 * (tokens * (sum(matrices) - head.numel()) + work.sampled * head.numel())
    assert counted.get_total_flops() == expected


def test_peers_write_next_to_links_to_a_model_and_not_to_the_model_itself(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    parameters, kind = prepare(tmp_path / "model", tmp_path / "links")
    assert kind == "Qwen2ForCausalLM from 'model'"
    assert parameters == AutoModelForCausalLM.from_pretrained(tmp_path / "links").num_parameters()
    (tmp_path / "links" / "trl").mkdir()
    assert not (tmp_path / "model" / "trl").exists()


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
    assert claim == Claim(claim.text, 2.0, 1.9, at_least=True, by_cpu=1.9)
    assert not claim.kept


def test_the_engine_is_measured_against_the_products_alone() -> None:
    cells = [measurement("ours", "even", [2.0]), measurement("products", "even", [1.0])]
    (claim,) = claims({(cell.work, cell.dtype, cell.side): cell for cell in cells})
    assert (claim.claimed, claim.measured, claim.kept) == (1.5, 2.0, False)


def test_scaling_is_judged_per_token() -> None:
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

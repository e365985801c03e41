"""Weights that do not reach an engine, or not all of them, end a run within a step; those that do raise no alarm."""

from pathlib import Path
from typing import Any

import pytest
import torch

from llmgym.agents import GRPO
from llmgym.engines.local.engine import LocalEngine
from llmgym.engines.local.slots import Slots
from llmgym.errors import EngineError
from llmgym.report.metrics import varies
from llmgym.train import actor

SMALL: dict[str, Any] = {
    "prompts_per_step": 2,
    "group_size": 4,
    "max_tokens": 24,
    "eval_episodes": 0,
    "sample_every": 0,
    "learning_rate": 2e-3,
    "warmup_steps": 0,
    "temperature": 1.5,
    "scorer": lambda episode: sum(map(ord, episode.actions[0])) % 97 / 97,
}
ADAPTED = {**SMALL, "lora_rank": 4, "learning_rate": 5e-2}


def train(tmp_path: Path, steps: int, **options: Any) -> Any:
    return GRPO(output_dir=tmp_path, **options).train(steps=steps)


def leave_out(monkeypatch: pytest.MonkeyPatch, missing: Any) -> None:
    """Let some of the weights that are handed over not arrive."""
    load = LocalEngine.load_weights

    def partly(self: LocalEngine, weights: Any, version: int) -> None:
        load(self, [(name, value) for name, value in weights if not missing(name)], version)

    monkeypatch.setattr(LocalEngine, "load_weights", partly)


@pytest.mark.parametrize(
    "options",
    [SMALL, ADAPTED, pytest.param({**SMALL, "engine_dtype": "bfloat16"}, marks=pytest.mark.long)],
    ids=["whole", "adapters", "bfloat16 engine"],
)
def test_weights_that_arrive_raise_no_alarm(options: dict[str, Any], tmp_path: Path) -> None:
    agent = GRPO(output_dir=tmp_path, **options)
    agent.train(steps=3)
    student = agent.trainer.student
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for version in range(25):
        with torch.no_grad():
            for parameter in student.model.parameters():
                if parameter.requires_grad:
                    parameter += 5e-4 * torch.randn(parameter.shape, generator=generator)
        student.hand_over(version)
        worst = max(worst, student._canary.check(version))
    assert worst < student._canary.tolerance / (1 if "engine_dtype" in options else 50)


def test_weights_that_do_not_arrive_at_all_end_the_run_in_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out(monkeypatch, lambda name: True)
    with pytest.raises(EngineError, match=r"weights of version 1 were handed over, engine and learner differ"):
        train(tmp_path, 3, **ADAPTED)
    assert not list(tmp_path.iterdir())


def test_an_engine_that_keeps_its_old_weights_is_said_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = GRPO(output_dir=tmp_path, **ADAPTED)
    agent.train(steps=1)
    leave_out(monkeypatch, lambda name: True)
    with pytest.raises(EngineError, match="says what it said before: it still has its old weights"):
        agent.train(steps=1)


@pytest.mark.parametrize("part", ["layers.1.", "layers.3.mlp.down_proj", "layers.0.self_attn.q_proj"])
def test_one_layer_or_one_adapter_that_does_not_arrive_ends_the_run(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out(monkeypatch, lambda name: part in name)
    with pytest.raises(EngineError, match="some of the weights reached it and some did not"):
        train(tmp_path, 1, **ADAPTED)


def test_a_cache_of_earlier_weights_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slots, "_leave", lambda self, prompt: None)  # prompts are kept, also those that nobody uses
    agent = GRPO(output_dir=tmp_path, **SMALL)
    agent.train(steps=1)
    monkeypatch.setattr(Slots, "clear", lambda self: None)
    with pytest.raises(EngineError, match="or it has a cache that was filled under earlier ones"):
        agent.train(steps=1)


def test_a_run_may_do_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor.Canary, "check", lambda self, version: pytest.fail("it was asked for none"))
    train(tmp_path, 1, canary_every=0, **SMALL)
    train(tmp_path, 1, canary_every=2, **SMALL)


def test_what_is_sampled_for_training_does_not_depend_on_it(tmp_path: Path) -> None:
    found = [train(tmp_path, 3, canary_every=every, **SMALL).metrics for every in (0, 1, 2)]
    names = [name for name in found[0][0] if not varies(name)]
    rows = [[{name: row[name] for name in names} for row in metrics] for metrics in found]
    assert repr(rows[0]) == repr(rows[1]) == repr(rows[2])

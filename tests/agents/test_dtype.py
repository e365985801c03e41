"""`--dtype bfloat16`: agents learn and sample with narrow weights, and save them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llmgym.agents import DPO, GRPO, PPO, RewardModel
from llmgym.errors import ConfigError

SMALL: dict[str, Any] = {"prompts_per_step": 2, "group_size": 4, "max_tokens": 32, "eval_episodes": 4}
PAIRS: dict[str, Any] = {"batch_size": 4}


@pytest.fixture
def any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bfloat16 where it is slow, too: torch computes it everywhere."""
    monkeypatch.setattr("llmgym.train.hardware._multiplies_bfloat16", lambda device: True)


@pytest.mark.usefixtures("any_processor")
@pytest.mark.parametrize(
    ("agent", "options"),
    [
        (GRPO, SMALL | {"kl_coef": 0.1, "epochs": 2}),
        pytest.param(GRPO, SMALL | {"lora_rank": 4, "lora_merge": True}, marks=pytest.mark.long),
        pytest.param(PPO, SMALL, marks=pytest.mark.long),
        (PPO, SMALL | {"critic": "shared", "gradient_checkpointing": True}),
        pytest.param(DPO, PAIRS | {"eval_episodes": 0}, marks=pytest.mark.long),
        (RewardModel, PAIRS | {"examples": 30, "held_out": 10}),
    ],
    ids=lambda value: getattr(value, "name", "+".join(value) if isinstance(value, dict) else None),
)
def test_an_agent_learns_in_bfloat16(agent: Any, options: dict[str, Any], tmp_path: Path) -> None:
    run = agent(output_dir=tmp_path, dtype="bfloat16", warmup_steps=0, **options).train(steps=2)
    for metrics in run.metrics:
        assert metrics["updates_skipped"] == 0
        assert metrics["grad_norm"] > 0
        assert metrics.get("kl", 0.0) < 0.1
    saved = load_file(run.path / "checkpoint" / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}
    assert "dtype: bfloat16" in (run.path / "config.yaml").read_text()


@pytest.mark.usefixtures("any_processor")
def test_what_samples_and_what_learns_have_the_same_weights(tmp_path: Path) -> None:
    agent = GRPO(output_dir=tmp_path, dtype="bfloat16", **SMALL)
    metrics = agent.train(steps=2).metrics[-1]
    assert {parameter.dtype for parameter in agent.trainer.student.model.parameters()} == {torch.bfloat16}
    assert 0 < metrics["mismatch/kl"] < 0.02  # rounding in another order


def test_bfloat16_is_refused_where_the_hardware_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "avx512_bf16": False})
    for agent in (GRPO, RewardModel):
        with pytest.raises(ConfigError, match="expected a GPU or a processor with bfloat16 instructions"):
            agent(dtype="bfloat16", device="cpu").trainer  # noqa: B018  # made when asked for

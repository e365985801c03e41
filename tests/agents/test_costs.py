"""A run keeps little in memory, and measures only what it keeps something for."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from llmgym.agents import GRPO
from llmgym.demo import TINY_PATH
from llmgym.errors import ConfigError

SMALL: dict[str, Any] = {
    "env": "AIOpsTriage",
    "prompts_per_step": 2,
    "group_size": 4,
    "eval_episodes": 0,
    "max_tokens": 32,
    "updates_per_step": 1,
    "learning_rate": 1e-3,
    "warmup_steps": 0,
}


def copies_of_the_embedding(agent: GRPO) -> int:
    """Count what is as large as the largest weight: itself, its gradient, two moments, and what else is kept."""
    gc.collect()
    shape = agent.trainer.student.model.get_input_embeddings().weight.shape
    tensors = [one for one in gc.get_objects() if isinstance(one, torch.Tensor) and one.shape == shape]
    return len({one.untyped_storage().data_ptr() for one in tensors})


@pytest.mark.parametrize(
    ("options", "reference"),
    [
        ({"model": str(TINY_PATH)}, False),
        ({"model": str(TINY_PATH), "measure_kl": "always"}, True),
        ({"model": str(TINY_PATH), "kl_coef": 0.1}, True),
        ({}, True),
        ({"measure_kl": "never"}, False),
    ],
)
def test_weights_are_kept_twice_only_where_something_reads_the_reference(
    options: dict[str, Any], reference: bool, tmp_path: Path
) -> None:
    gc.collect()
    agent = GRPO(**{**SMALL, **options}, output_dir=tmp_path)
    before = copies_of_the_embedding(agent)
    metrics = agent.train(steps=1).metrics
    assert ("kl" in metrics[0]) == reference
    assert copies_of_the_embedding(agent) - before == 3 + reference  # a gradient and two moments


@pytest.mark.parametrize("options", [{"top_p": 0.8}, {"top_k": 3}])
def test_the_divergence_from_an_equal_reference_is_nothing_whatever_is_cut_off(
    options: dict[str, Any], tmp_path: Path
) -> None:
    hot = {**SMALL, "temperature": 2.0, "reference_every": 1}
    agent = GRPO(**hot, **options, mismatch_correction="truncate", output_dir=tmp_path)
    for metrics in agent.train(steps=2).metrics:
        assert metrics["mismatch/log_ratio_mean"] < -0.01  # a good deal is cut off
        assert metrics["kl"] == pytest.approx(0.0, abs=1e-6)


def test_a_reference_that_nothing_reads_is_not_refreshed() -> None:
    with pytest.raises(ConfigError, match="reference_every: expected a reference"):
        GRPO(env="AIOpsTriage", model=str(TINY_PATH), reference_every=2)

"""A run tells its chat templates one time, that of its start or the one given, and writes it down."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from llmgym.agents.grpo import GRPO
from llmgym.agents.reward_model import RewardModel
from llmgym.demo import TINY_PATH
from llmgym.demo.tiny import CHATML
from llmgym.errors import ConfigError
from llmgym.learn.checkpoint import save_checkpoint
from llmgym.rollout.run_time import set_run_time

DATED = "<|im_start|>system\nToday is {{ strftime_now('%d %b %Y') }}.<|im_end|>\n" + CHATML
QUICK: dict[str, Any] = {"eval_episodes": 2, "prompts_per_step": 2, "group_size": 2, "max_tokens": 4, "sample_every": 0}


@pytest.fixture
def dated(tmp_path: Path) -> Path:
    """A reward model whose chat template asks for the date."""
    tokenizer = AutoTokenizer.from_pretrained(TINY_PATH)
    tokenizer.chat_template = DATED
    model = AutoModelForSequenceClassification.from_pretrained(TINY_PATH, num_labels=1)
    model.config.pad_token_id = tokenizer.eos_token_id
    path = tmp_path / "rewards"
    save_checkpoint(path, model, tokenizer)
    return path


def test_policy_and_reward_model_are_told_the_date_given_and_the_run_notes_it(dated: Path, tmp_path: Path) -> None:
    agent = GRPO(date="2026-11-28", scorer=f"reward_model:{dated}", output_dir=tmp_path, **QUICK)
    try:
        run = agent.train(steps=1).path
        template = agent.trainer.student.codec.template
        assert template.now == agent.scorer.model.template.now == datetime(2026, 11, 28)  # type: ignore[union-attr]
    finally:
        set_run_time()
    assert json.loads((run / "environment.json").read_text())["date"] == "2026-11-28T00:00:00"
    assert "date: '2026-11-28T00:00:00'" in (run / "config.yaml").read_text()


def test_a_reward_model_is_trained_on_the_date_given(dated: Path, tmp_path: Path) -> None:
    agent = RewardModel(
        env="AIOpsTriage",
        date="2026-11-28",
        model=str(dated),
        output_dir=tmp_path,
        examples=8,
        held_out=2,
        batch_size=2,
    )
    try:
        student = agent.trainer.student
        assert student.rewards.template.now == datetime(2026, 11, 28)
        assert student.facts()["date"] == "2026-11-28T00:00:00"
    finally:
        set_run_time()


def test_an_invalid_date_is_refused() -> None:
    with pytest.raises(ConfigError, match="date"):
        GRPO(date="tomorrow")

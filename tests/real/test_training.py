"""Agents train a real model, and what they save answers."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiers import long_but
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import llmgym
from llmgym.agents import DPO, GRPO, PPO, SFT, RewardModel
from llmgym.train.agent import OnlineAgent, RewardAgent

pytestmark = pytest.mark.slow

PLAYED: dict[str, Any] = {"prompts_per_step": 2, "group_size": 2, "max_tokens": 12}
WRITTEN: dict[str, Any] = {"examples": 6, "batch_size": 3}
SMALL: dict[type, dict[str, Any]] = {
    GRPO: {**PLAYED, "env": "AIOpsTriage"},  # two turns and long prompts; those of the other are short
    PPO: {**PLAYED, "kl_coef": 0.01},
    DPO: WRITTEN,
    SFT: WRITTEN,
    RewardModel: {**WRITTEN, "held_out": 2},
}


def variety(episode: llmgym.Episode) -> float:
    """How many different characters are said: siblings differ in it, also where they solve nothing."""
    return len(set("".join(episode.actions))) / 26


def trained(agent_class: type, real_model: Path, tmp_path: Path, lora_rank: int) -> tuple[Any, Path]:
    """An agent after two steps, which both found a gradient, and its checkpoint."""
    options = {"env": "benchmarks.where_is:WhereIs", "model": str(real_model), "lora_rank": lora_rank}
    options |= {"output_dir": tmp_path, **SMALL[agent_class]}
    if not issubclass(agent_class, RewardAgent):
        options["eval_episodes"] = 0
    if issubclass(agent_class, OnlineAgent):
        options["scorer"] = variety
    agent = agent_class(**options)
    result = agent.train(steps=2)
    for metrics in result.metrics:
        assert metrics["updates_skipped"] == 0
        assert math.isfinite(metrics["grad_norm"])
        assert metrics["grad_norm"] > 0
    return agent, result.path / "checkpoint"


@pytest.mark.parametrize(
    ("agent_class", "lora_rank"),
    long_but(itertools.product([GRPO, PPO, DPO, SFT], [0, 8]), (GRPO, 0), (PPO, 8), (DPO, 0), (SFT, 8)),
    ids=lambda value: getattr(value, "name", "lora" if value else "weights"),
)
def test_what_an_agent_saves_opens_in_transformers_has_learnt_and_answers(
    agent_class: type, lora_rank: int, real_model: Path, tmp_path: Path
) -> None:
    agent, path = trained(agent_class, real_model, tmp_path, lora_rank)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path)  # through peft where it holds adapters
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        logits = model(**prompt).logits
        torch.testing.assert_close(logits, agent.trainer.student.model(**prompt).logits, atol=1e-4, rtol=1e-4)
    del agent
    untrained = AutoModelForCausalLM.from_pretrained(real_model)
    with torch.no_grad():
        assert not torch.equal(logits, untrained(**prompt).logits)
    reply = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(reply)


@pytest.mark.parametrize("lora_rank", [0, 8], ids=["weights", "lora"])
def test_a_reward_model_scores_with_transformers_as_it_did_in_training(
    lora_rank: int, real_model: Path, tmp_path: Path
) -> None:
    agent, path = trained(RewardModel, real_model, tmp_path, lora_rank)
    rewards = agent.trainer.student.rewards
    pair = agent.trainer.judge.pairs[0]
    sides = [rewards.encode(pair.prompt + side) for side in (pair.chosen, pair.rejected)]
    expected = rewards.rewards([sides])
    del agent, rewards
    model = AutoModelForSequenceClassification.from_pretrained(path)
    with torch.no_grad():
        actual = [float(model(torch.tensor([side])).logits) for side in sides]
    assert actual == pytest.approx(expected, abs=1e-3)
    assert actual[0] != actual[1]

"""The real SGLang serves a real model, on a CPU; tests/sglang_cpu says how it is installed."""

from pathlib import Path

import pytest
import torch
from replay import plain_log_probs, play, sampled_log_probs

pytest.importorskip("sglang", reason="SGLang is not installed here: make test-real")
pytest.importorskip("sgl_kernel", reason="SGLang has no kernels here: make test-real")

from cpu_options import CPU

from llmgym.agents import GRPO
from llmgym.engines.served.engine import ServedEngine
from llmgym.engines.sglang.in_process import InProcess
from llmgym.models.causal_lm import load_causal_lm, stop_token_ids_of
from llmgym.rollout.chat import ChatCodec

pytestmark = pytest.mark.slow


def test_what_sglang_sampled_has_the_log_probs_of_transformers_which_are_the_embedded_engines(real_model: Path) -> None:
    model, tokenizer = load_causal_lm(real_model)
    engine = ServedEngine([InProcess(str(real_model), CPU)], notify=print)
    try:
        played = play(engine, ChatCodec(tokenizer, stop_token_ids_of(model)), temperature=0.7, count=8)
    finally:
        engine.close()
    for trajectory in played:
        expected = plain_log_probs(model, trajectory, temperature=0.7)
        torch.testing.assert_close(sampled_log_probs(trajectory), expected, atol=1e-4, rtol=0)


def test_grpo_trains_through_sglang_which_follows_the_learner(real_model: Path, tmp_path: Path) -> None:
    agent = GRPO(
        env="AIOpsTriage",
        model=str(real_model),
        scorer=lambda episode: float(len("".join(episode.actions))),  # siblings differ in it
        engine="sglang",
        engine_kwargs=CPU,
        engine_check=1e-4,  # nats, on average, between what sampled and what learns
        learning_rate=1e-5,
        measure_kl="always",
        prompts_per_step=2,
        group_size=2,
        max_tokens=12,
        eval_episodes=0,
        output_dir=tmp_path,
    )
    try:
        result = agent.train(steps=2)
    finally:
        agent.close()
    assert all(metrics["grad_norm"] > 0 for metrics in result.metrics)
    assert result.metrics[-1]["kl"] > 0  # the policy has moved, and SGLang with it

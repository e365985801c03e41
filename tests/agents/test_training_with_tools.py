"""Tools in training: each family's format from the expert's calls to the gradient, through GRPO and PPO."""

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from families import tokenizer_of
from transformers import LlamaConfig, LlamaForCausalLM

from llmgym import Episode, TextEnv, ToolCall, learn, register_env
from llmgym.agents import GRPO, PPO, SFT
from llmgym.calls import ActionLike
from llmgym.data.trajectories import read_trajectories
from llmgym.rollout.chat import ChatCodec
from llmgym.rollout.trajectory import Reply, Trajectory

FORMATS = ["Qwen2.5", "Qwen3", "Qwen3.5", "Llama 3.1", "Mistral", "GLM-4.5", "SmolLM2", "Gemma 3"]
ANSWER = "ZEBRA"


def look() -> str:
    """Look."""
    return ANSWER


@register_env("Look-v0")
class Look(TextEnv):
    """Look, then say y; one task, which a small model can learn by heart."""

    tools, max_turns = (look,), 2

    def begin(self) -> str:
        return "?"

    def score(self, episode: Episode) -> float:
        return 0.5 * (len(episode.turns) == 2) + 0.5 * (episode.actions[-1] == "y")

    def expert(self) -> Iterator[ActionLike]:
        yield ToolCall("look", {})
        yield "y"


@pytest.fixture(scope="module", params=FORMATS)
def taught(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of a family's tokenizer that has seen its expert call the tool."""
    tokenizer = tokenizer_of(request.param)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    path = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    options: dict[str, Any] = {"examples": 2, "batch_size": 1, "learning_rate": 1e-2, "eval_episodes": 0}
    run = SFT(env="Look-v0", model=path, output_dir=path / "runs", steps=40, **options).train()
    return run.path / "checkpoint"


def small(model: Path) -> dict[str, Any]:
    return {
        "env": "Look-v0",
        "model": model,
        "output_dir": model / "runs",
        "prompts_per_step": 2,
        "group_size": 4,
        "max_tokens": 64,
        "eval_episodes": 0,
        "updates_per_step": 1,
        "learning_rate": 1e-3,
    }


def without_observations(trajectory: Trajectory) -> Trajectory:
    """Return an episode whose replies follow one another."""
    kept = [i for i, sampled in enumerate(trajectory.mask) if sampled or i < trajectory.replies[0].start]
    ends = list(
        itertools.accumulate((r.stop - r.start for r in trajectory.replies), initial=trajectory.replies[0].start)
    )
    replies = [
        Reply(start, stop, one.finish_reason, one.weight_version, one.reward)
        for (start, stop), one in zip(itertools.pairwise(ends), trajectory.replies, strict=True)
    ]
    shorter = copy.copy(trajectory)
    shorter.tokens, shorter.mask = [trajectory.tokens[i] for i in kept], [trajectory.mask[i] for i in kept]
    shorter.log_probs, shorter.replies = [trajectory.log_probs[i] for i in kept], replies
    return shorter


def test_grpo_trains_on_calls_and_on_nothing_that_a_tool_says(taught: Path) -> None:
    agent = GRPO(**small(taught))
    run = agent.train(steps=2)
    first, second = run.metrics
    assert first["part/tools/calls"] > 0
    assert first["kl_approx"] == pytest.approx(0.0, abs=1e-5)
    assert first["clip_fraction"] == 0.0
    assert first["ESS"] == pytest.approx(1.0, abs=1e-4)
    assert second["mismatch/kl"] == pytest.approx(0.0, abs=1e-6)
    played = read_trajectories(run.path / "trajectories" / "step-00001.parquet")
    answered = [one for one in played if any(message.role == "tool" for message in one.messages)]
    assert answered
    codec = ChatCodec(agent.trainer.student.tokenizer)
    for one in played:
        assert sum(one.mask) == one.sampled_tokens == sum(reply.stop - reply.start for reply in one.replies)
        observed = [token for token, sampled in zip(one.tokens, one.mask, strict=True) if not sampled]
        looked = sum(message.content == ANSWER for message in one.messages)
        assert codec.spell(observed).count(ANSWER) >= looked
    batch = agent.prepare(played)
    assert not batch["advantage"][~batch["mask"]].any()
    shorter = agent.prepare([without_observations(one) for one in played])
    torch.testing.assert_close(batch["advantage"][batch["mask"]], shorter["advantage"][shorter["mask"]])


def test_ppo_values_the_end_of_each_turn_and_nothing_that_a_tool_says(taught: Path) -> None:
    agent = PPO(**small(taught), kl_coef=0.0)
    run = agent.train(steps=2)
    first, _ = run.metrics
    assert first["part/tools/calls"] > 0
    assert first["kl_approx"] == pytest.approx(0.0, abs=1e-5)
    played = read_trajectories(run.path / "trajectories" / "step-00002.parquet")
    batch = agent.prepare(played)
    agent.complete(batch, agent.trainer.learner)
    values, mask = batch["state_value"], batch["mask"]
    for row, one in enumerate(played):
        ends = [reply.stop - 1 for reply in one.replies]
        assert mask[row, ends].all()
        assert values[row, ends].all()
        assert set(batch["token_reward"][row].nonzero()[:, 0].tolist()) <= set(ends)
    elsewhere = torch.where(mask, values, 1e3)  # at the tokens of tools, too
    advantages = [
        learn.gae(some, batch["token_reward"], mask, 1.0, 0.95, episode=batch["episode"])[0][mask]
        for some in (values, elsewhere)
    ]
    torch.testing.assert_close(*advantages)


def test_a_user_with_tools_is_told_once_how_they_are_shown_if_the_template_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"examples": 2, "batch_size": 1, "steps": 1, "eval_episodes": 2, "max_tokens": 8}
    SFT(env="Look-v0", model="tiny", output_dir=tmp_path, **options).train()
    assert " ".join(capsys.readouterr().out.split()).count("has no way of showing tools") == 1
    SFT(env="AIOpsTriage", model="tiny", output_dir=tmp_path, **options).train()
    assert "showing tools" not in " ".join(capsys.readouterr().out.split())

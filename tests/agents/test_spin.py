"""SPIN from end to end: the expert's episodes against the policy's own."""

import math
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch

import llmgym
from llmgym.agents import SPIN
from llmgym.agents.spin import main
from llmgym.data.trajectories import read_trajectories
from llmgym.rollout.demonstrate import demonstrate

SMALL: dict[str, Any] = {"prompts_per_step": 3, "eval_episodes": 0, "max_tokens": 48}


@pytest.mark.slow
def test_a_small_run_speaks_more_like_the_expert(tmp_path: Path) -> None:
    run = SPIN(prompts_per_step=32, max_tokens=64, eval_episodes=0, output_dir=tmp_path).train(steps=7)
    rewards = [metrics["reward"] for metrics in run.metrics]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1
    assert all(math.isfinite(value) for metrics in run.metrics for value in metrics.values())


@pytest.mark.parametrize("scorer", [None, lambda episode: llmgym.Score(None, error="no judge")])
def test_each_pair_is_the_experts_episode_and_the_policys_own_of_the_same_task(scorer: Any, tmp_path: Path) -> None:
    agent = SPIN(output_dir=tmp_path, scorer=scorer, group_size=2, **SMALL)
    run = agent.train(steps=1)
    own = read_trajectories(run.path / "trajectories" / "step-00001.parquet")
    batch = agent.prepare([*own, *agent.trainer.steps._demonstrations(own)])
    assert batch["pair"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert batch["chosen"].tolist() == [True, False] * 6
    assert batch["group"].tolist() == [trajectory.group for trajectory in own for _ in range(2)]
    played = gymnasium.make("llmgym/AIOpsTriage-v0", difficulty=0)  # as the model's name chose for the run
    shown = demonstrate(played, [trajectory.seed for trajectory in own])
    codec = agent.trainer.student.codec
    for pair, (demonstration, trajectory) in enumerate(zip(shown, own, strict=True)):
        expert, policy = batch[2 * pair], batch[2 * pair + 1]
        said = codec.text(expert["tokens"][expert["mask"]].tolist())
        assert said == "".join(m.content for m in demonstration.completion if m.role == "assistant")
        length = len(trajectory.tokens)
        assert policy["tokens"][:length].tolist() == trajectory.tokens
        assert policy["mask"][:length].tolist() == trajectory.mask
        prompt = int(expert["prompt_length"])
        assert expert["tokens"][:prompt].tolist() == trajectory.tokens[:prompt]  # both answer the same


def test_training_starts_at_a_loss_of_log_two_against_the_policy_that_answered(tmp_path: Path) -> None:
    run = SPIN(output_dir=tmp_path, updates_per_step=1, **SMALL).train(steps=2)
    for metrics in run.metrics:
        assert metrics["loss_dpo"] == pytest.approx(math.log(2), abs=1e-4)
        assert metrics["kl"] == pytest.approx(0.0, abs=1e-6)
        assert metrics["mismatch/kl"] == pytest.approx(0.0, abs=1e-6)  # of what the policy said, not of the expert's


def test_a_policy_that_speaks_as_the_expert_learns_nothing(tmp_path: Path) -> None:
    agent = SPIN(output_dir=tmp_path, updates_per_step=1, **SMALL)
    own = read_trajectories(agent.train(steps=1).path / "trajectories" / "step-00001.parquet")
    batch = agent.prepare([*own, *agent.trainer.steps._demonstrations(own)])
    demonstrations = batch[batch["chosen"]]
    both = torch.stack([demonstrations, demonstrations], dim=1).flatten()
    both["pair"], both["chosen"] = batch["pair"], batch["chosen"]
    agent.trainer.student.begin(agent.trainer.learner)
    both["ref_log_probs"] = agent.trainer.learner.reference.log_probs(both)
    metrics = agent.trainer.learner.update(both)
    assert metrics["grad_norm"] == pytest.approx(0.0, abs=1e-4)


class Mute(llmgym.TextEnv):
    """An environment without an expert."""

    def begin(self) -> str:
        return "Say something."

    def score(self, episode: llmgym.Episode) -> float:
        return 1.0


def test_an_environment_without_an_expert_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    gymnasium.register("Mute-v0", entry_point=Mute)
    small = ["--prompts-per-step", "2", "--eval-episodes", "0", "--max-tokens", "4"]
    assert main(["--env", "Mute-v0", "--output-dir", str(tmp_path), *small]) == 2
    gymnasium.registry.pop("Mute-v0")
    assert "Mute has no expert to learn from" in capsys.readouterr().err

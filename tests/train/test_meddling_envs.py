"""An environment or a scorer that changes what a whole process shares changes nothing of what is learnt."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import llmgym
from llmgym import Episode
from llmgym.agents import GRPO, PPO
from llmgym.envs.aiops.triage import AIOpsTriage


def meddle() -> None:
    """Change what a whole process shares."""
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    torch.set_grad_enabled(False)
    torch.inference_mode().__enter__()
    torch.set_default_dtype(torch.float64)
    os.chdir("/")


class Meddling(AIOpsTriage):
    """Triage that may meddle whenever it is asked for something."""

    meddles = False

    def _meddle(self) -> None:
        if self.meddles:
            meddle()

    def begin(self) -> str:
        """Begin."""
        self._meddle()
        return super().begin()

    def respond(self, action: str) -> str | None:
        """Go on."""
        self._meddle()
        return super().respond(action)

    def score(self, episode: Episode) -> float:
        """Score."""
        self._meddle()
        return by_length(episode)


def by_length(episode: Episode) -> float:
    """Score so that there is something to learn in the first steps."""
    return float(len(episode.actions[-1]) % 7)


def meddling_scorer(episode: Episode) -> float:
    """Score likewise, and meddle."""
    meddle()
    return by_length(episode)


def learnt(agent: type[GRPO | PPO], output: Path, **options: Any) -> dict[str, torch.Tensor]:
    """Return what a run learns, and let others find what they expect of the process."""
    sizes: dict[str, Any] = {"prompts_per_step": 2, "max_tokens": 8, "eval_episodes": 0, "sample_every": 0}
    directory = Path.cwd()
    try:
        done = agent(env="Meddling-v0", output_dir=output, **sizes, **options).train(steps=2)
        assert (torch.get_default_dtype() == torch.float64) == (Meddling.meddles or "scorer" in options)
    finally:
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)
        os.chdir(directory)
    assert all(step["grad_norm"] > 0 for step in done.metrics)
    return load_file(done.path / "checkpoint" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("agent", [GRPO, PPO])
def test_what_is_learnt_is_the_same_to_the_bit(
    agent: type[GRPO | PPO], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llmgym.register_env("Meddling-v0")(Meddling)
    undisturbed = learnt(agent, tmp_path)
    by_scorer = learnt(agent, tmp_path, scorer=meddling_scorer)
    monkeypatch.setattr(Meddling, "meddles", True)
    by_env = learnt(agent, tmp_path)
    for name, one in undisturbed.items():
        assert torch.equal(one, by_scorer[name]), name
        assert torch.equal(one, by_env[name]), name

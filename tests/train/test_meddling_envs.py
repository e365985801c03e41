"""An environment or a scorer that changes what a whole process shares changes nothing of what is learnt."""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import llmgym
from llmgym import Episode
from llmgym.agents import GRPO
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

    def score(self, episode: Episode) -> Any:
        """Score."""
        self._meddle()
        return super().score(episode)


@pytest.fixture(autouse=True)
def set_back() -> Iterator[None]:
    """Let other tests find what they expect."""
    directory = Path.cwd()
    yield
    torch.set_grad_enabled(True)
    torch.set_default_dtype(torch.float32)
    os.chdir(directory)


def learnt(output: Path, **options: Any) -> dict[str, torch.Tensor]:
    sizes: dict[str, Any] = {"prompts_per_step": 2, "group_size": 4, "max_tokens": 8, "eval_episodes": 2}
    run = GRPO(env="Meddling-v0", output_dir=output, sample_every=0, epochs=2, **sizes, **options).train(steps=2).path
    return load_file(run / "checkpoint" / "model.safetensors")


def score(episode: Episode) -> float:
    """Score by the words that were sampled."""
    return float(len(episode.actions[-1]) % 7)


def meddling_score(episode: Episode) -> float:
    """Score likewise, and meddle."""
    meddle()
    return score(episode)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["environment", "scorer"])
def test_what_is_learnt_is_the_same_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    llmgym.register_env("Meddling-v0")(Meddling)
    by_scorer = who == "scorer"
    undisturbed = learnt(tmp_path, **({"scorer": score} if by_scorer else {}))
    monkeypatch.setattr(Meddling, "meddles", not by_scorer)
    found = learnt(tmp_path, **({"scorer": meddling_score} if by_scorer else {}))
    assert torch.get_default_dtype() == torch.float64
    assert all(torch.equal(one, found[name]) for name, one in undisturbed.items())

"""The memory that a run is said to need: its parts, and what a forward pass keeps."""

import re
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from torch import nn

import llmgym
from llmgym.agents import GRPO, PPO
from llmgym.learn.needs import GIB, Needs, _container_free, _machine_free, free_memory, training_needs


def needs_of(model: nn.Module, run: Any, **options: Any) -> Needs:
    given = {"tokens": 8, "batch_tokens": 800, "reference": True, **options}
    return training_needs(model, policy=model, run=run, **given)


def test_gradients_moments_and_reference_are_those_of_what_is_trained() -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 16))
    model[0].requires_grad_(False)
    x = torch.randn(8, 16)
    needs = needs_of(model, lambda: model(x).sum())
    size = 4 * (32 * 16 + 16)
    sizes = [needs.to_come[name] for name in ("gradients", "the optimiser", "the reference")]
    assert sizes == [size, 2 * size, size]
    assert needs_of(model, lambda: model(x).sum(), reference=False).to_come["the reference"] == 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_the_optimiser_keeps_of_narrow_weights_is_as_large_as_of_wide_ones() -> None:
    model = nn.Linear(16, 32).to(torch.bfloat16)
    needs = needs_of(model, lambda: model(torch.randn(8, 16, dtype=torch.bfloat16)).sum())
    sizes = [needs.to_come[name] for name in ("gradients", "the optimiser", "the reference")]
    count = 32 * 16 + 32
    assert sizes == [4 * count, 8 * count, 2 * count]


def test_activations_are_what_the_backward_pass_reads_and_each_counts_once() -> None:
    first, second = (nn.Linear(16, 16, bias=False) for _ in range(2))
    x = torch.randn(8, 16)

    def run() -> torch.Tensor:
        hidden = first(x).exp()  # kept by exp, and by the next layer: one tensor
        return second(hidden).sum()

    needs = needs_of(nn.Sequential(first, second), run)
    kept = x.nbytes + 4 * 8 * 16
    assert needs.to_come["activations of 800 tokens"] == kept * 100
    assert needs.forward > 0
    assert needs.backward > 0


def test_a_critic_of_its_own_doubles_them(tmp_path: Path) -> None:
    small: dict[str, Any] = {"prompts_per_step": 2, "group_size": 2, "eval_episodes": 0, "output_dir": tmp_path}
    name = "activations of 2,048 tokens"
    trainers = [agent(**small).trainer for agent in (GRPO, PPO)]
    alone, own = (trainer.student.needs(trainer.learner).to_come for trainer in trainers)
    trainer = PPO(critic="shared", **small).trainer
    shared = trainer.student.needs(trainer.learner).to_come
    assert own[name] == pytest.approx(2 * alone[name], rel=0.02)
    assert shared[name] == pytest.approx(alone[name], rel=0.02)
    assert own["gradients"] == pytest.approx(2 * alone["gradients"], rel=0.2)  # a trunk and no head


def test_playing_takes_time_only_where_something_is_played(tmp_path: Path) -> None:
    options: dict[str, Any] = {"prompts_per_step": 2, "group_size": 2, "eval_episodes": 0, "max_tokens": 8, "steps": 1}
    played = GRPO(**options, output_dir=tmp_path / "played")
    run = played.train().path
    stored = GRPO(**options, output_dir=tmp_path / "stored", rollouts_from=run)
    needs = Needs(held=0, to_come={}, free=None, forward=1e-3, backward=0.0)
    told = [agent.trainer.steps.time_in_words(needs, 1) for agent in (played, stored)]
    seconds = [float(re.search(r"([\d.]+) s per step of 4 episodes", words)[1]) for words in told]  # type: ignore[index]
    assert 0 < seconds[1] < 0.6 * seconds[0]  # what is learnt from is read once, not sampled and then read


def test_what_does_not_fit_is_reported_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    options: dict[str, Any] = {"prompts_per_step": 2, "group_size": 2, "eval_episodes": 0, "max_tokens": 8}
    agent = GRPO(output_dir=tmp_path, **options)
    agent.train(steps=1)
    said = " ".join(capsys.readouterr().out.split())
    assert "Memory: about" in said
    assert "If every episode has 2 turns, every reply 8 tokens, and the environment's answers are short, " in said
    assert " per step of 4 episodes. " in said
    assert "This may not fit" not in said
    monkeypatch.setattr("llmgym.learn.needs.free_memory", lambda device: GIB // 1000)
    agent.train(steps=1)
    assert "0.0 GiB are free" in (said := " ".join(capsys.readouterr().out.split()))
    assert "This may not fit" in said


class Endless(llmgym.TextEnv):
    """Says nothing of how many turns an episode has."""

    def begin(self) -> str:
        return "hello"

    def score(self, episode: llmgym.Episode) -> float:
        return 1.0


def test_an_estimate_says_that_the_environment_names_no_limit_of_turns(tmp_path: Path) -> None:
    llmgym.register_env("Endless-v0")(Endless)
    try:
        trainer = GRPO(env="Endless-v0", max_tokens=8, eval_episodes=0, output_dir=tmp_path).trainer
    finally:
        gymnasium.registry.pop("Endless-v0")
        llmgym.registry._IDS.remove("Endless-v0")
    said = trainer.steps.time_in_words(trainer.student.needs(trainer.learner), steps=1)
    assert said.startswith(". The environment names no limit of turns (max_turns): 1 is assumed. If every reply has ")


def test_free_memory_is_the_machines_or_what_a_container_grants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_machine = _machine_free()
    monkeypatch.setattr("llmgym.learn.needs._machine_free", lambda: of_machine)  # it changes from moment to moment
    found = free_memory(torch.device("cpu"))
    assert found is None or 0 < found <= (of_machine or found)
    assert _container_free(tmp_path) is None
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert _container_free(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert _container_free(tmp_path) == 700

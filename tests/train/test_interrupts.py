"""What was learnt until a run is interrupted is kept, whoever interrupts it and when."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import llmgym
from llmgym.agents import GRPO
from llmgym.learn.learner import Learner
from llmgym.train.agent import run_command
from llmgym.train.interrupts import terminated_like_interrupted, uninterrupted

SMALL: dict[str, Any] = {
    "prompts_per_step": 2,
    "group_size": 4,
    "max_tokens": 32,
    "eval_episodes": 0,
    "sample_every": 0,
}
ADAPTED = {**SMALL, "lora_rank": 4, "learning_rate": 5e-2, "warmup_steps": 0}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_waits_for_what_must_not_be_interrupted(number: int) -> None:
    done: list[int] = []
    before = signal.getsignal(number)

    def work() -> None:
        with uninterrupted():
            for part in (1, 2):
                os.kill(os.getpid(), number)
                done.append(part)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [1, 2]
    assert signal.getsignal(number) is before


def test_a_termination_interrupts() -> None:
    def work() -> None:
        with terminated_like_interrupted():
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()

    with pytest.raises(KeyboardInterrupt):
        work()


def test_a_run_that_is_terminated_keeps_its_checkpoint(tmp_path: Path) -> None:
    words = [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "llmgym.agents.grpo", *words, "--steps", "200", "--output-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        while run.poll() is None and not _has_metrics(tmp_path):
            time.sleep(0.05)
        run.send_signal(signal.SIGTERM)
        said = run.communicate(timeout=60)[0]
    assert run.returncode == 130, said
    (directory,) = tmp_path.iterdir()
    assert (directory / "checkpoint" / "model.safetensors").exists()
    assert (directory / "learning_curve.png").exists()


def test_a_termination_that_a_library_catches_ends_the_run_after_its_step(tmp_path: Path) -> None:
    caught: list[int] = []

    @llmgym.register_scorer("catching-test")
    def catching(episode: llmgym.Episode) -> float:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except KeyboardInterrupt:
            caught.append(1)
        return 0.0

    words = [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    words += ["--scorer", "catching-test", "--steps", "9", "--output-dir", str(tmp_path)]
    assert run_command(GRPO, words) == 130
    assert len(caught) == 8
    (directory,) = tmp_path.iterdir()
    assert len((directory / "metrics.jsonl").read_text().splitlines()) == 1
    assert (directory / "checkpoint" / "model.safetensors").exists()


def _has_metrics(output: Path) -> bool:
    return any(file.stat().st_size for file in output.glob("*/metrics.jsonl"))


def test_a_signal_while_the_checkpoint_is_written_waits_until_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = GRPO(output_dir=tmp_path, **SMALL)
    save = agent.trainer.student.save

    def slow(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        save(*arguments)

    monkeypatch.setattr(agent.trainer.student, "save", slow)
    with pytest.raises(KeyboardInterrupt):
        agent.train(steps=1)
    (directory,) = tmp_path.iterdir()
    assert (directory / "checkpoint" / "model.safetensors").exists()
    assert (directory / "learning_curve.png").exists()


def test_a_checkpoint_that_cannot_be_written_leaves_the_other_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = GRPO(output_dir=tmp_path, **SMALL)

    def full(*arguments: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(agent.trainer.student, "save", full)
    with pytest.raises(OSError, match="no space left"):
        agent.train(steps=1)
    (directory,) = tmp_path.iterdir()
    assert (directory / "learning_curve.png").exists()


def test_after_an_interrupted_update_adapters_are_sampled_with_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = GRPO(output_dir=tmp_path, **ADAPTED)
    update = Learner.update

    def interrupted(self: Learner, batch: Any) -> Any:
        update(self, batch)
        raise KeyboardInterrupt

    agent.train(steps=1)
    monkeypatch.setattr(Learner, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        agent.train(steps=1)
    monkeypatch.setattr(Learner, "update", update)
    (metrics,) = agent.train(steps=1).metrics
    assert metrics["mismatch/log_ratio_max"] < 1e-2


def test_a_state_that_is_loaded_is_sampled_with(tmp_path: Path) -> None:
    first, second = GRPO(output_dir=tmp_path, **ADAPTED), GRPO(output_dir=tmp_path, **ADAPTED)
    first.train(steps=2)
    second.trainer.student.begin(second.trainer.learner)
    second.trainer.learner.load_state_dict(first.trainer.learner.state_dict())
    (metrics,) = second.train(steps=1).metrics
    assert metrics["mismatch/log_ratio_max"] < 1e-2
    assert torch.isfinite(torch.tensor(metrics["kl"]))

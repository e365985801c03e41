"""What was learnt until a run is interrupted is kept, whoever interrupts it and when."""

import contextlib
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
from llmgym.config.sections import Budget
from llmgym.learn.learner import Learner
from llmgym.train.agent import run_command
from llmgym.train.interrupts import OUT_OF_BUDGET, Interrupted, Interruptions, LeaveAtOnceError, signals_interrupt
from llmgym.train.limits import Limits

SMALL: dict[str, Any] = {
    "prompts_per_step": 2,
    "group_size": 4,
    "max_tokens": 32,
    "eval_episodes": 0,
    "sample_every": 0,
}
ADAPTED = {**SMALL, "lora_rank": 4, "learning_rate": 5e-2, "warmup_steps": 0}


def test_what_is_saved_is_not_interrupted_and_the_run_ends_after_it() -> None:
    done: list[int] = []
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        interruptions = Interruptions(grace=60)
        with interruptions.handling(), interruptions.step(), interruptions.saving():
            for part in (1, 2):
                os.kill(os.getpid(), signal.SIGTERM)
                done.append(part)

    with pytest.raises(Interrupted) as ended:
        work()
    assert done == [1, 2]
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_step_that_takes_longer_than_its_grace_is_abandoned_and_an_update_is_not() -> None:
    interruptions = Interruptions(grace=0.3)
    waited: list[float] = []
    begun = time.monotonic()

    def work() -> None:
        with interruptions.handling(), interruptions.step():
            interruptions.updating = True
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.6)
            waited.append(time.monotonic() - begun)
            os.kill(os.getpid(), signal.SIGTERM)
            waited.append(0.0)

    with pytest.raises(LeaveAtOnceError):
        work()
    assert len(waited) == 1
    assert waited[0] >= 0.6

    def play() -> None:
        interruptions = Interruptions(grace=0.3)
        with interruptions.handling(), interruptions.step():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(30)

    begun = time.monotonic()
    with pytest.raises(Interrupted) as ended:
        play()
    assert 0.3 <= time.monotonic() - begun < 10
    assert ended.value.code == 129
    assert not isinstance(ended.value, LeaveAtOnceError)


@pytest.mark.parametrize("stepping", [True, False])
def test_a_limit_that_is_reached_ends_a_run_that_says_so(stepping: bool, capsys: pytest.CaptureFixture[str]) -> None:
    interruptions = Interruptions(60, Limits(Budget(max_time="00:00:00")).reached)

    def work() -> None:
        with interruptions.handling(), interruptions.step() if stepping else contextlib.nullcontext():
            time.sleep(0.5 if stepping else 30)

    with pytest.raises(Interrupted) as ended:
        work()
    assert ended.value.code == OUT_OF_BUDGET
    assert capsys.readouterr().out.startswith("Its time is up: the run ")


def test_a_signal_that_a_process_was_told_to_ignore_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruptions(grace=60).handling():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_termination_before_training_interrupts() -> None:
    def work() -> None:
        with signals_interrupt():
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()

    with pytest.raises(Interrupted) as ended:
        work()
    assert ended.value.code == 143


class Swallowing:
    """Has itself interrupted where Python ignores what is raised."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


@pytest.mark.parametrize("before", [True, False])
def test_an_interruption_that_python_ignores_is_made_up_for(before: bool) -> None:
    def work() -> None:
        with signals_interrupt() if before else Interruptions(grace=60).handling():
            one = Swallowing()
            del one
            time.sleep(30)

    with pytest.raises(Interrupted) as ended:
        work()
    assert ended.value.code == 143


def test_a_run_that_is_terminated_keeps_its_checkpoint(tmp_path: Path) -> None:
    words = [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "llmgym.agents.grpo", *words, "--steps", "200", "--output-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        while run.poll() is None and not _has_metrics(tmp_path):
            time.sleep(0.05)
        run.send_signal(signal.SIGTERM)
        said = run.communicate(timeout=60)[0]
    assert run.returncode == 143, said
    (directory,) = tmp_path.iterdir()
    assert (directory / "checkpoint" / "model.safetensors").exists()
    assert (directory / "learning_curve.png").exists()


def test_a_termination_that_a_library_catches_ends_the_run_after_its_step(tmp_path: Path) -> None:
    caught: list[int] = []

    @llmgym.register_scorer("catching-test")
    def catching(episode: llmgym.Episode) -> float:
        try:
            if not caught:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
        except KeyboardInterrupt:
            caught.append(1)
        return 0.0

    words = [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    words += ["--scorer", "catching-test", "--steps", "9", "--output-dir", str(tmp_path)]
    assert run_command(GRPO, [*words, "--grace", "0"]) == 143
    assert len(caught) == 1
    (directory,) = tmp_path.iterdir()
    assert len((directory / "metrics.jsonl").read_text().splitlines()) == 1
    assert (directory / "checkpoint" / "model.safetensors").exists()


def _has_metrics(output: Path) -> bool:
    return any(file.stat().st_size for file in output.glob("*/metrics.jsonl"))


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

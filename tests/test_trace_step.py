"""A reader of one training step has few files to open."""

import inspect

import pytest

from llmgym.train.trainer import Trainer
from tools.trace_step import trace


@pytest.mark.slow
def test_a_grpo_step_enters_at_most_50_files_besides_those_of_its_environment() -> None:
    step = trace().step
    files = [name for name in step.functions if not name.startswith("envs/aiops/")]
    assert {"train/online.py", "rollout/play.py", "engines/local/engine.py", "learn/learner.py"} <= set(files)
    assert len(files) <= 50, files


def test_the_trainers_loop_fits_on_a_screen() -> None:
    assert len(inspect.getsource(Trainer.train).splitlines()) <= 30

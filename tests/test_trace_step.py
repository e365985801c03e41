"""A reader of one training step has few files to open."""

import inspect
from collections.abc import Callable

import pytest

from llmgym.train.trainer import Trainer
from tools.trace_step import trace


@pytest.mark.slow
def test_a_grpo_step_enters_at_most_58_files_besides_those_of_its_environment() -> None:
    step = trace().step
    files = [name for name in step.functions if not name.startswith("envs/aiops/")]
    assert {"train/online.py", "rollout/play.py", "engines/local/engine.py", "learn/learner.py"} <= set(files)
    assert len(files) <= 58, files


@pytest.mark.parametrize("part", [Trainer.train, Trainer._take_steps, Trainer._take_step])
def test_each_part_of_the_trainers_loop_fits_on_a_screen(part: Callable[..., object]) -> None:
    assert len(inspect.getsource(part).splitlines()) <= 30

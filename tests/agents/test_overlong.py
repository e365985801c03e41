"""A run goes on where a task does not fit the context, whatever the algorithm."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import llmgym
from llmgym.agents import GRPO, OPO, PPO, SPIN, SPPO, IterativeDPO
from llmgym.agents.base import OnlineAgent
from llmgym.data.trajectories import read_trajectories
from llmgym.envs.aiops.triage import AIOpsTriage


class LongWinded(AIOpsTriage):
    """Tells about one incident in four at more length than any model reads."""

    def begin(self) -> str:
        told = super().begin()
        return told + " and so on" * (4000 if self.np_random.integers(4) == 0 else 0)


@pytest.fixture
def long_winded() -> Iterator[None]:
    llmgym.register_env("LongWinded-test-v0")(LongWinded)
    yield
    gymnasium.registry.pop("LongWinded-test-v0")
    llmgym.registry._IDS.remove("LongWinded-test-v0")


@pytest.mark.usefixtures("long_winded")
@pytest.mark.parametrize("agent_class", [GRPO, PPO, OPO, SPPO, IterativeDPO, SPIN], ids=lambda cls: cls.name)
def test_tasks_that_do_not_fit_are_counted_and_the_others_learnt_from(
    agent_class: type[OnlineAgent], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"prompts_per_step": 6, "group_size": 2, "max_tokens": 32, "eval_episodes": 12}
    agent = agent_class(env="LongWinded-test-v0", output_dir=tmp_path, max_overlong=0.9, **options)
    run = agent.train(steps=2)
    assert run.before is not None
    assert 0 < run.before.missing < 12  # held-out ones likewise
    overlong = [int(metrics["prompts_overlong"]) for metrics in run.metrics]
    assert 0 < sum(overlong) < 24
    assert all(metrics["grad_norm"] > 0 for metrics in run.metrics)
    for step, count in enumerate(overlong, start=1):
        written = read_trajectories(run.path / "trajectories" / f"step-{step:05d}.parquet")
        assert sum(not trajectory.replies for trajectory in written) == count <= run.metrics[step - 1]["scores_missing"]

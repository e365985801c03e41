"""Two real short runs of the same tasks, and shards that somebody else wrote."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from llmgym.agents import GRPO
from llmgym.data.trajectories import write_trajectories
from llmgym.engines.base import Completion
from llmgym.rollout.trajectory import Trajectory
from llmgym.types import Message

SMALL = {"prompts_per_step": 3, "group_size": 4, "max_tokens": 64, "sample_every": 0, "save_every": 0}


@pytest.fixture(scope="session")
def real_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of the same seed that learn at different rates."""
    parent = tmp_path_factory.mktemp("runs")
    paths = []
    for name, rate, steps in (("fast", 5e-3, 3), ("slow", 1e-5, 2)):
        agent = GRPO(output_dir=parent, steps=steps, eval_episodes=8, learning_rate=rate, **SMALL)
        paths.append(agent.train().path.rename(parent / name))
    return paths


@pytest.fixture
def run_of(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run directory of steps with given episodes."""

    def write(steps: dict[int, Sequence[Trajectory]], name: str = "mine") -> Path:
        run = tmp_path / name
        (run / "trajectories").mkdir(parents=True)
        for step, episodes in steps.items():
            write_trajectories(run / "trajectories" / f"step-{step:05d}.parquet", episodes)
        lines = [json.dumps({"step": step, "reward": 0.5}) + "\n" for step in steps]
        (run / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
        (run / "config.yaml").write_text("advantage: group_std\n", encoding="utf-8")
        return run

    return write


@pytest.fixture
def copied(real_runs: list[Path], tmp_path: Path) -> Path:
    """A real run that a test may spoil."""
    return Path(shutil.copytree(real_runs[0], tmp_path / "copied"))


def episode(said: str = "yes", score: float | None = 1.0, seed: int = 7, group: int = 0) -> Trajectory:
    """An episode of one turn."""
    one = Trajectory(seed=seed, group=group)
    one.observe([1, 2, 3])
    one.act(Completion(0, [4, 5], [-0.5, -0.25], "stop", weight_version=3))
    one.messages = [Message("user", "Is it?"), Message("assistant", said)]
    one.parts = {"success": float(score == 1.0), "style": 0.25}
    one.score, one.ending = score, "terminated"
    return one

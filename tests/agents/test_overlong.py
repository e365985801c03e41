"""A run goes on where a task does not fit the context, whatever the algorithm."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from tiers import long_but

import llmgym
from llmgym.agents import GRPO, OPO, PPO, SPIN, SPPO, IterativeDPO
from llmgym.data.trajectories import read_trajectories
from llmgym.envs.aiops.triage import AIOpsTriage
from llmgym.errors import ContextOverflowError, TrainingError
from llmgym.train.agent import OnlineAgent
from llmgym.types import Score


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
@pytest.mark.parametrize(
    "agent_class", long_but([GRPO, PPO, OPO, SPPO, IterativeDPO, SPIN], GRPO, PPO, SPIN), ids=lambda cls: cls.name
)
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


@pytest.mark.usefixtures("long_winded")
def test_a_run_whose_first_tasks_do_not_fit_stops_at_once(tmp_path: Path) -> None:
    options: dict[str, Any] = {"prompts_per_step": 4, "group_size": 2, "max_tokens": 8, "eval_episodes": 0}
    agent = GRPO(output_dir=tmp_path, context_length=64, max_overlong=1.0, **options)
    with pytest.raises(ContextOverflowError, match="The first observations of 4 of 4 tasks leave no room"):
        agent.train(steps=1)


def test_a_run_stops_where_no_episode_of_several_steps_has_a_score(tmp_path: Path, capsys: Any) -> None:
    asked: list[llmgym.Episode] = []

    def out_after_a_while(episode: llmgym.Episode) -> Score:
        asked.append(episode)
        return Score(1.0) if len(asked) <= 4 else Score(None, error="the judge is out")

    options: dict[str, Any] = {"prompts_per_step": 2, "group_size": 2, "max_tokens": 8, "eval_episodes": 0}
    agent = GRPO(output_dir=tmp_path, scorer=out_after_a_while, max_failure_rate=1.0, **options)
    with pytest.raises(TrainingError, match=r"No episode of 3 steps in a row has a score\. .* the judge is out"):
        agent.train(steps=5)
    said = " ".join(capsys.readouterr().out.split())
    assert "Step 2: 4 of 4 episodes have no score, one since the judge is out" in said
    assert said.count("of replies did not end by themselves; max_tokens (8) or the context cut them off.") == 1


def test_spin_needs_no_score(tmp_path: Path) -> None:
    options: dict[str, Any] = {"prompts_per_step": 2, "group_size": 2, "max_tokens": 8, "eval_episodes": 0}
    agent = SPIN(output_dir=tmp_path, scorer=lambda episode: Score(None, error="nobody asks"), **options)
    assert len(agent.train(steps=4).metrics) == 4


def test_a_context_longer_than_the_models_is_reported(tmp_path: Path, capsys: Any) -> None:
    for asked, told in ((100_000, True), (64, False), (4096, False)):  # the last is the default
        _ = GRPO(output_dir=tmp_path, context_length=asked).trainer
        said = " ".join(capsys.readouterr().out.split())
        assert ("which is all that this model takes, not at 100000." in said) == told

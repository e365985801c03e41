"""Training on the rows of a data set: every row once per epoch, held-out rows never, and what is refused."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import llmgym
from llmgym.agents import GRPO, SFT
from llmgym.data.order import in_epochs
from llmgym.data.tasks import TaskTable
from llmgym.data.trajectories import read_trajectories
from llmgym.errors import ConfigError, ContextOverflowError, DataError
from llmgym.rollout.trajectory import Trajectory
from llmgym.train.agent import Agent
from llmgym.train.tasks import RunRows

SMALL: dict[str, Any] = {"group_size": 2, "max_tokens": 4, "measure_kl": "never"}


def rows(count: int, name: str = "row") -> list[dict[str, str]]:
    return [{"prompt": f"{name} {n}: {n} + 1?", "answer": str(n + 1)} for n in range(count)]


def file(path: Path, content: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


def collected(agent: Agent) -> list[list[Trajectory]]:
    """Have every rollout of an agent noted from now on."""
    seen: list[list[Trajectory]] = []
    player = agent.trainer.steps.player  # type: ignore[attr-defined]
    collect = player.collect

    def note(*arguments: Any) -> list[Trajectory]:
        seen.append(collect(*arguments))
        return seen[-1]

    player.collect = note
    return seen


# The order.


@pytest.mark.parametrize(("count", "size"), [(7, 3), (6, 3), (5, 5), (3, 8), (1, 1)])
def test_every_row_is_played_once_per_epoch_whatever_the_size_of_a_step(count: int, size: int) -> None:
    order = RunRows(TaskTable(rows(count)), None, seed=3)
    played = [row for step in range(1, 50) for row in order.order(step, 0, size, size)]
    for epoch in range(len(played) // count):
        assert sorted(played[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(in_epochs(epoch * 20, (epoch + 1) * 20, 20, seed)) for epoch in range(5) for seed in range(5)}
    assert len(orders) == 25


def test_a_step_is_a_function_of_its_number_alone() -> None:
    straight, resumed = (RunRows(TaskTable(rows(11)), None, seed=5) for _ in range(2))
    before = [straight.order(step, rollout, 4, 4) for step in range(1, 9) for rollout in range(2)]
    assert before[8:] == [resumed.order(step, rollout, 4, 4) for step in range(5, 9) for rollout in range(2)]


def test_what_replaces_groups_takes_no_row_of_the_epoch_away() -> None:
    order = RunRows(TaskTable(rows(8)), None, seed=0)
    played = [order.order(step, 0, 4, 4) for step in (1, 2)]
    replaced = order.order(1, 1, 4, 3)
    assert sorted([*played[0], *played[1]]) == list(range(8))
    assert replaced != played[0][:3]


# A run.


def test_training_plays_every_row_once_per_epoch_with_its_siblings_and_evaluates_each_held_out_row_once(
    tmp_path: Path,
) -> None:
    options = {**SMALL, "prompts_per_step": 3, "output_dir": tmp_path / "runs"}
    train, val = file(tmp_path / "train.jsonl", rows(6)), file(tmp_path / "val.jsonl", rows(5, "held out"))
    agent = GRPO(env="qa", data=train, eval_data=val, scorer="exact", steps=2, **options)
    seen = collected(agent)
    result = agent.train()
    assert result.before is not None
    assert result.before.episodes == 5
    played = [trajectory for rollout in seen for trajectory in rollout]
    assert Counter(trajectory.data_row for trajectory in played) == dict.fromkeys(range(6), 2)
    for rollout in seen:
        for group in {trajectory.group for trajectory in rollout}:
            siblings = [trajectory for trajectory in rollout if trajectory.group == group]
            assert len({(one.data_row, one.seed, one.messages[0].content) for one in siblings}) == 1
    assert not any("held out" in trajectory.messages[0].content for trajectory in played)
    (first, *_) = sorted((result.path / "trajectories").iterdir())
    assert {one.data_row for one in read_trajectories(first)} == {one.data_row for one in seen[0]}
    config = (result.path / "config.yaml").read_text()
    assert f"data: {train}" in config
    assert f"eval_data: {val}" in config
    assert "eval_episodes: 5" in config
    assert [metrics["epoch"] for metrics in result.metrics] == [0.5, 1.0]


def test_a_run_that_begins_later_goes_on_in_the_same_order(tmp_path: Path) -> None:
    def agent() -> GRPO:
        return GRPO(env="qa", data=rows(7), scorer="exact", prompts_per_step=3, output_dir=tmp_path, **SMALL)

    whole, half = agent(), agent()
    straight, later = collected(whole), collected(half)
    whole.train(steps=3)
    half.trainer.steps_done = 2
    half.train(steps=1)
    assert [one.data_row for one in later[0]] == [one.data_row for one in straight[2]]


def test_evaluation_plays_each_held_out_row_once_and_all_environments_share_one_table() -> None:
    agent = GRPO(env="qa", data=rows(4), eval_data=rows(30, "held out"), scorer="exact", **SMALL)
    actor = agent.trainer.student
    tasks = actor.held_out_tasks  # type: ignore[attr-defined]
    assert sorted(task.row for task in tasks) == list(range(30))
    for split, count in (("eval", 30), (None, 4)):
        envs = actor.make_envs(8, split=split)  # type: ignore[attr-defined]
        (table,) = {id(env.unwrapped.table): env.unwrapped.table for env in envs.envs}.values()
        assert len(table) == count
        envs.close()
    assert agent.evaluate().episodes == 30


def test_eval_episodes_choose_some_rows_each_once_and_the_same_ones_in_every_run() -> None:
    options = {"data": rows(4), "eval_data": rows(30, "held out"), "scorer": "exact", "eval_episodes": 12}
    chosen = [
        [task.row for task in GRPO(env="qa", seed=seed, **options, **SMALL).trainer.student.held_out_tasks]  # type: ignore[attr-defined]
        for seed in (0, 1)
    ]
    assert chosen[0] == chosen[1] == sorted(set(chosen[0]))
    assert len(chosen[0]) == 12


def test_rows_that_are_held_out_too_are_left_out_of_training_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    agent = GRPO(env="qa", data=rows(6), eval_data=[*rows(2), *rows(1, "other")], scorer="exact", **SMALL)
    kept = agent.trainer.student.rows  # type: ignore[attr-defined]
    assert kept.training.rows.tolist() == [2, 3, 4, 5]
    assert len(kept.held_out) == 3
    told = " ".join("".join(capsys.readouterr()).split())
    assert "2 of 6 rows of data are left out" in told


def test_a_share_is_held_out_with_every_row_of_its_prompts() -> None:
    doubled = [*rows(20), *rows(20)]
    made = [GRPO(env="qa", data=doubled, eval_share=0.2, scorer="exact", seed=seed, **SMALL) for seed in (0, 0, 1)]
    first, again, other = (agent.trainer.student.rows for agent in made)  # type: ignore[attr-defined]
    assert len(first.held_out) == 8
    prompts = [{table.task(row)["prompt"] for row in table.rows} for table in (first.training, first.held_out)]
    assert not prompts[0] & prompts[1]
    assert first.held_out.rows.tolist() == again.held_out.rows.tolist() != other.held_out.rows.tolist()


def test_without_rows_that_are_held_out_all_are_trained_on_and_nothing_is_evaluated(tmp_path: Path) -> None:
    agent = GRPO(env="qa", data=rows(4), scorer="exact", prompts_per_step=4, output_dir=tmp_path, **SMALL)
    seen = collected(agent)
    assert agent.train(steps=1).before is None
    assert {trajectory.data_row for trajectory in seen[0]} == {0, 1, 2, 3}
    with pytest.raises(ConfigError, match="rows that are held out, got 0"):
        agent.evaluate()


def test_a_scorer_of_rows_says_what_a_success_is(tmp_path: Path) -> None:
    seen = []

    def compute_score(solution_str: str, ground_truth: str, **rest: Any) -> float:
        seen.append(ground_truth)
        return float(len(seen) % 2)

    agent = GRPO(env="qa", data=rows(2), scorer=compute_score, prompts_per_step=2, output_dir=tmp_path, **SMALL)
    (metrics,) = agent.train(steps=1).metrics
    assert (metrics["reward"], metrics["success"]) == (0.5, 0.5)
    assert sorted(seen) == ["1", "1", "2", "2"]


def test_rows_among_the_arguments_of_the_environment_are_data(tmp_path: Path) -> None:
    path = file(tmp_path / "train.jsonl", rows(4))
    agent = GRPO(env="qa", env_kwargs={"rows": str(path)}, scorer="exact", **SMALL)
    assert agent.config.tasks.path == path
    assert len(agent.trainer.student.rows.training) == 4  # type: ignore[attr-defined]
    assert not agent.trainer.judge.size


def test_an_environment_that_brings_its_own_rows_needs_no_data(tmp_path: Path) -> None:
    @llmgym.register_env("OwnRows-test-v0")
    class OwnRows(llmgym.TaskEnv):
        def __init__(self, split: str = "train", **options: Any) -> None:
            super().__init__(rows(6) if split == "train" else rows(3, "held out"), **options)

        def score(self, episode: llmgym.Episode) -> float:
            return 1.0

    agent = GRPO(env="OwnRows-test-v0", prompts_per_step=3, output_dir=tmp_path, **SMALL)
    seen = collected(agent)
    result = agent.train(steps=2)
    assert Counter(one.data_row for rollout in seen for one in rollout) == dict.fromkeys(range(6), 2)
    assert result.after is not None
    assert result.after.episodes == 3


def test_what_learns_from_a_file_is_evaluated_on_rows_that_are_held_out(tmp_path: Path) -> None:
    shown = [{"prompt": "1 + 1?", "completion": "2"}] * 4
    agent = SFT(
        env="qa",
        data=file(tmp_path / "shown.jsonl", shown),
        eval_data=file(tmp_path / "val.jsonl", rows(3)),
        env_kwargs={"scorer": "exact"},
        max_tokens=4,
        output_dir=tmp_path,
    )
    after = agent.train(steps=1).after
    assert after is not None
    assert (after.episodes, after.missing) == (3, 0)


def test_rows_that_do_not_fit_the_context_are_counted_and_too_many_end_the_run(tmp_path: Path) -> None:
    long = [{"prompt": "long " * 2000, "answer": "1"}]
    options = {**SMALL, "scorer": "exact", "context_length": 512, "output_dir": tmp_path}
    agent = GRPO(env="qa", data=[*rows(5), *long], prompts_per_step=6, **options)
    (metrics,) = agent.train(steps=1).metrics
    assert metrics["prompts_overlong"] == 2  # both siblings
    with pytest.raises(ContextOverflowError, match=r"first observation of row \d takes"):
        GRPO(env="qa", data=long * 4, prompts_per_step=4, **options).train(steps=1)


# What is refused, before a model is loaded.


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"env": "AIOpsTriage", "data": rows(2)},
            ConfigError,
            "data: llmgym/AIOpsTriage-v0 takes no rows",
        ),
        ({"env": "qa"}, ConfigError, "TaskEnv expects rows, got none: give a file with --data"),
        ({"env": "qa", "data": "nowhere.parquet"}, DataError, "no such file"),
        ({"env": "qa", "data": [{"prompt": ""}]}, DataError, "row 0: expected a prompt, got blank text"),
        ({"env": "qa", "eval_data": rows(2)}, ConfigError, "eval_data: expected data too"),
        ({"env": "qa", "eval_share": 0.5}, ConfigError, "eval_share: is about the rows of data"),
        ({"env": "AIOpsTriage", "skip_bad_rows": True}, ConfigError, "skip_bad_rows: is about the rows of data"),
        ({"env": "qa", "data": rows(9), "eval_episodes": 5}, ConfigError, "eval_episodes: data is given and none of"),
        (
            {"env": "qa", "data": rows(9), "eval_data": rows(2, "b"), "eval_episodes": 5},
            DataError,
            "eval_episodes: expected at most 2, the rows that are held out, got 5",
        ),
        (
            {"env": "qa", "data": rows(9), "eval_data": rows(2, "b"), "eval_share": 0.5},
            ConfigError,
            "eval_share: expected none beside eval_data",
        ),
        (
            {"env": "qa", "data": rows(9), "eval_data": rows(2, "b"), "eval_episodes": 0},
            ConfigError,
            "eval_data: its rows are played to evaluate",
        ),
        ({"env": "qa", "data": rows(3), "eval_share": 0.1}, DataError, "eval_share: 0.1 of 3 rows is 0"),
        ({"env": "qa", "data": rows(3), "eval_data": rows(4)}, DataError, "every prompt is among those that are held"),
        (
            {"env": "qa", "data": rows(3), "env_kwargs": {"rows": rows(3)}},
            ConfigError,
            "expected none beside env_kwargs rows",
        ),
        (
            {"env": "qa", "data": rows(3), "env_kwargs": {"prompt_column": "question"}},
            DataError,
            "no column 'question'.*Columns: prompt, answer",
        ),
    ],
)
def test_what_does_not_work_is_refused_before_a_model_is_loaded(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        GRPO(**options, scorer="exact", model="nowhere/at/all").train(steps=1)


def test_rows_that_are_no_task_are_left_out_where_that_is_asked_for() -> None:
    agent = GRPO(env="qa", data=[*rows(3), {"prompt": ""}], skip_bad_rows=True, scorer="exact", **SMALL)
    assert agent.trainer.student.rows.training.rows.tolist() == [0, 1, 2]  # type: ignore[attr-defined]

"""OPO and iterative DPO from end to end: what is paired, what is learnt, and against which reference."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import llmgym
from llmgym.agents import OPO, IterativeDPO
from llmgym.agents.opo import main
from llmgym.data.trajectories import read_trajectories

SMALL: dict[str, Any] = {"prompts_per_step": 2, "group_size": 4, "eval_episodes": 0, "max_tokens": 48}
HOT = {**SMALL, "temperature": 2.0}  # so that siblings differ


@pytest.mark.slow
def test_a_small_run_improves_its_reward(tmp_path: Path) -> None:
    run = OPO(prompts_per_step=8, max_tokens=64, learning_rate=1e-3, eval_episodes=0, output_dir=tmp_path).train(9)
    rewards = [metrics["reward"] for metrics in run.metrics]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1
    assert all(math.isfinite(value) for metrics in run.metrics for value in metrics.values())


@pytest.mark.parametrize(("strategy", "most"), [("best_worst", 1), ("adjacent", 3)])
def test_the_batch_holds_the_pairs_of_what_was_sampled(strategy: str, most: int, tmp_path: Path) -> None:
    agent = OPO(output_dir=tmp_path, pair_strategy=strategy, scorer=lambda e: len(e.actions[0]), **HOT)
    run = agent.train(steps=1)
    trajectories = read_trajectories(run.path / "trajectories" / "step-00001.parquet")
    batch = agent.prepare(trajectories)
    assert batch is not None
    assert 1 <= len(batch["pair"].unique()) <= 2 * most
    assert (batch["reward"][batch["chosen"]] > batch["reward"][~batch["chosen"]]).all()
    assert (batch["group"][batch["chosen"]] == batch["group"][~batch["chosen"]]).all()


def test_training_starts_at_a_loss_of_log_two_and_makes_the_chosen_likelier(tmp_path: Path) -> None:
    options = {**HOT, "scorer": lambda e: len(e.actions[0]), "updates_per_step": 1, "epochs": 2, "warmup_steps": 0}
    once = OPO(output_dir=tmp_path, **{**options, "epochs": 1}).train(steps=1).metrics[0]
    twice = OPO(output_dir=tmp_path, **options).train(steps=1).metrics[0]
    assert once["loss_dpo"] == pytest.approx(math.log(2), abs=1e-4)
    assert once["margin"] == pytest.approx(0.0, abs=1e-4)
    assert once["grad_norm"] > 0
    assert 2 * twice["loss_dpo"] - once["loss_dpo"] < once["loss_dpo"] - 0.01  # of the second epoch alone
    assert twice["margin"] > 0.01


@pytest.mark.parametrize(("every", "moved"), [(0, [False, True, True]), (1, [False] * 3), (2, [False, True, False])])
def test_the_reference_is_frozen_or_becomes_the_policy_every_so_many_steps(
    every: int, moved: list[bool], tmp_path: Path
) -> None:
    options = {**SMALL, "reference_every": every, "temperature": 2.0, "scorer": lambda e: len(e.actions[0])}
    run = OPO(output_dir=tmp_path, **options).train(steps=3)
    assert [metrics["kl"] > 1e-5 for metrics in run.metrics] == moved


@pytest.mark.parametrize("score", [0.5, None])
def test_ties_and_missing_scores_teach_nothing(score: float | None, tmp_path: Path) -> None:
    said = llmgym.Score(score, error="no judge" if score is None else None)
    agent = OPO(output_dir=tmp_path, scorer=lambda episode: said, max_failure_rate=1.0, **SMALL)
    before = [parameter.clone() for parameter in agent.trainer.student.model.parameters()]
    (metrics,) = agent.train(steps=1).metrics
    assert "loss_dpo" not in metrics
    for one, other in zip(agent.trainer.student.model.parameters(), before, strict=True):
        assert torch.equal(one, other)


def test_options_that_make_no_sense_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in [
        (["--beta", "0"], "beta: Input should be greater than 0, got 0"),
        (["--group-size", "1"], "group_size: expected at least 2, got 1"),
        (["--reference-every", "-1"], "reference_every: Input should be greater than or equal to 0, got -1"),
    ]:
        assert main(words) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(llmgym.errors.ConfigError, match="pair_strategy"):
        OPO(pair_strategy="random")


def test_iterative_dpo_goes_over_the_pairs_of_each_part_against_the_policy_that_sampled_it(tmp_path: Path) -> None:
    options = {**SMALL, "prompts_per_step": 4, "updates_per_step": 2, "epochs": 2, "temperature": 2.0}
    agent = IterativeDPO(output_dir=tmp_path, scorer=lambda e: len(e.actions[0]), **options)
    updates = []
    learn = agent.trainer.learner.update
    agent.trainer.learner.update = lambda batch: updates.append(batch) or learn(batch)  # type: ignore[method-assign]
    run = agent.train(steps=2)
    assert len(updates) == 2 * 2 * 2  # iterations, epochs, updates
    for iteration in (updates[:4], updates[4:]):
        first, second = ({int(g) for part in parts for g in part["group"]} for parts in (iteration[:2], iteration[2:]))
        assert first == second  # the same tasks in both epochs
    assert [metrics["kl"] for metrics in run.metrics] == pytest.approx([0.0, 0.0], abs=1e-6)
    seeds = [
        {trajectory.seed for trajectory in read_trajectories(shard)} for shard in (run.path / "trajectories").iterdir()
    ]
    assert not seeds[0] & seeds[1]  # no prompt is in two parts


@pytest.mark.slow
@pytest.mark.long
def test_iterative_dpo_improves_the_reward(tmp_path: Path) -> None:
    agent = IterativeDPO(prompts_per_step=32, updates_per_step=4, max_tokens=64, eval_episodes=0, output_dir=tmp_path)
    run = agent.train(steps=4)
    assert run.metrics[-1]["reward"] > run.metrics[0]["reward"] + 0.1

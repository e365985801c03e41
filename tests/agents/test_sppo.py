"""SPPO from end to end: which answers train, towards what, and what it refuses."""

import math
import zlib
from pathlib import Path
from typing import Any, cast

import pytest
import torch

import llmgym
from llmgym.agents import SPPO
from llmgym.agents.sppo import main
from llmgym.engines.base import Completion
from llmgym.rollout.trajectory import Trajectory
from llmgym.scorers.pairwise import PairwiseFunctionScorer
from llmgym.types import ScoreKind

SMALL: dict[str, Any] = {"prompts_per_step": 2, "group_size": 4, "eval_episodes": 0, "max_tokens": 48}


def played(group: int, score: float | None, kind: ScoreKind = "reward") -> Trajectory:
    trajectory = Trajectory(seed=group, group=group, score=score, score_kind=kind)
    trajectory.observe([5, 6])
    trajectory.act(Completion(0, [7, 8], [-0.5, -1.0], "stop", 0))
    return trajectory


@pytest.mark.slow
def test_a_small_run_improves_its_reward(tmp_path: Path) -> None:
    options: dict[str, Any] = {"prompts_per_step": 8, "max_tokens": 64, "eval_episodes": 0}
    run = SPPO(learning_rate_decay="none", output_dir=tmp_path, **options).train(steps=9)
    rewards = [metrics["reward"] for metrics in run.metrics]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1
    assert all(math.isfinite(value) for metrics in run.metrics for value in metrics.values())


def test_every_answer_with_a_scored_sibling_trains_towards_its_win_rate() -> None:
    scores = [(0, 1.0), (0, 0.5), (0, None), (0, 0.0), (1, 0.3), (1, None)]
    batch = SPPO().prepare([played(group, score) for group, score in scores])
    assert batch is not None
    assert batch["episode"].tolist() == [0, 1, 3]
    assert batch["win_rate"].tolist() == [1.0, 0.5, 0.0]


def test_a_threshold_keeps_those_that_win_or_lose_often_enough() -> None:
    group = [played(0, score) for score in (0.0, 0.1, 0.2, 0.3, 0.4)]
    for threshold, kept in [(0.5, [0, 1, 2, 3, 4]), (0.75, [0, 1, 3, 4]), (0.9, [0, 4]), (1.0, [0, 4])]:
        batch = SPPO(win_rate_threshold=threshold).prepare(group)
        assert batch is not None
        assert batch["episode"].tolist() == kept
    assert SPPO(win_rate_threshold=0.6).prepare([played(0, 0.5), played(0, 0.5)]) is None


def test_the_probabilities_of_a_scorer_that_compares_are_win_rates_as_they_are() -> None:
    batch = SPPO(win_rate_threshold=0.7).prepare([played(0, score, "win_rate") for score in (0.8, 0.6, None, 0.1)])
    assert batch is not None
    assert batch["episode"].tolist() == [0, 3]
    torch.testing.assert_close(batch["win_rate"], torch.tensor([0.8, 0.1]))


def test_log_odds_say_how_likely_one_answer_beats_another() -> None:
    scores = (0.0, math.log(3))
    for options, kind, expected in [
        ({}, "log_odds", [0.25, 0.75]),
        ({}, "reward", [0.0, 1.0]),
        ({"preference": "strict"}, "log_odds", [0.0, 1.0]),
    ]:
        batch = SPPO(**options).prepare([played(0, score, cast("ScoreKind", kind)) for score in scores])
        assert batch is not None
        torch.testing.assert_close(batch["win_rate"], torch.tensor(expected))


def test_the_first_loss_is_that_of_a_policy_which_has_not_moved(tmp_path: Path) -> None:
    options = {**SMALL, "beta": 0.5, "win_rate_threshold": 1.0, "updates_per_step": 1}
    run = SPPO(output_dir=tmp_path, scorer=lambda e: zlib.crc32("".join(e.actions).encode()), **options).train(steps=2)
    for metrics in run.metrics:  # the reference is the policy that sampled, in every step
        assert metrics["loss_sppo"] == pytest.approx((2 * 0.5) ** 2 / 2, abs=1e-3)
        assert metrics["log_ratio"] == pytest.approx(0.0, abs=1e-3)
        assert metrics["kl"] == pytest.approx(0.0, abs=1e-6)


def test_a_scorer_that_compares_is_enough(tmp_path: Path) -> None:
    longer = PairwiseFunctionScorer(lambda one, other: float(len(one.actions[0]) > len(other.actions[0])))
    (metrics,) = SPPO(output_dir=tmp_path, scorer=longer, temperature=2.0, **SMALL).train(steps=1).metrics
    assert metrics["reward"] == pytest.approx(0.5)  # each comparison is made both ways round
    assert metrics["grad_norm"] > 0


@pytest.mark.parametrize("score", [0.5, None])
def test_ties_everywhere_and_missing_scores_teach_nothing(score: float | None, tmp_path: Path) -> None:
    said = llmgym.Score(score, error="no judge" if score is None else None)
    agent = SPPO(output_dir=tmp_path, scorer=lambda episode: said, updates_per_step=1, max_failure_rate=1.0, **SMALL)
    before = [parameter.clone() for parameter in agent.trainer.student.model.parameters()]
    (metrics,) = agent.train(steps=1).metrics
    assert metrics.get("loss_sppo", 0.0) == pytest.approx(0.0, abs=1e-6)
    for one, other in zip(agent.trainer.student.model.parameters(), before, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)  # a step moves weights by 1e-4


def test_options_that_make_no_sense_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in [
        (["--beta", "0"], "beta: Input should be greater than 0, got 0"),
        (["--win-rate-threshold", "0.4"], "win_rate_threshold: Input should be greater than or equal to 0.5, got 0.4"),
    ]:
        assert main(words) == 2
        assert message in capsys.readouterr().err

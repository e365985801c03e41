"""Reward models from end to end: trained on preferences, judged by others, saved, and asked for scores."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from llmgym.agents import GRPO, RewardModel
from llmgym.agents.reward_model import main
from llmgym.data.preferences import generate_preferences, write_preferences
from llmgym.data.trajectories import read_trajectories
from llmgym.errors import ConfigError, DataError, ModelError
from llmgym.learn.reward_model import RewardModelScorer
from llmgym.rollout.scoring import episode_of
from llmgym.types import Message

SMALL: dict[str, Any] = {"examples": 30, "held_out": 10, "batch_size": 4}


def test_a_reward_model_among_other_scorers_runs_where_the_run_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(RewardModelScorer, "__init__", lambda self, path: None)
    monkeypatch.setattr(RewardModelScorer, "to", lambda self, device: asked.append(device))
    agent = GRPO(env="AIOpsTriage", scorer="0.5*env + 0.5*reward_model:x", device="cpu", output_dir=tmp_path)
    agent.trainer.close()
    assert asked == ["cpu"]


@pytest.mark.slow
def test_it_learns_to_tell_what_the_expert_does_from_mistakes(tmp_path: Path) -> None:
    run = RewardModel(examples=1300, held_out=100, steps=30, output_dir=tmp_path).train()
    assert run.before is not None
    assert run.after is not None
    assert (run.after.episodes, run.after.unit, run.after.measure) == (100, "pairs", "accuracy")
    assert run.after.success > run.before.success + 0.05
    assert run.after.reward > 0.3  # the margin between the two sides
    saved = json.loads((run.path / "evaluations.json").read_text())
    assert saved["after training"]["success"] == run.after.success
    assert all(math.isfinite(value) for metrics in run.metrics for value in metrics.values())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return RewardModel(output_dir=tmp_path_factory.mktemp("runs"), **SMALL).train(steps=2)


def test_what_it_saves_is_what_was_judged_and_what_transformers_loads(run: Any) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(run.path / "checkpoint")
    assert model.config.num_labels == 1
    scorer = RewardModelScorer(run.path / "checkpoint")
    held_out = generate_preferences("AIOpsTriage", SMALL["examples"], difficulty=0)[: SMALL["held_out"]]
    sides = [episode_of(pair.prompt + side) for pair in held_out for side in (pair.chosen, pair.rejected)]
    values = [score.value for score in scorer.score(sides)]
    margins = [chosen - rejected for chosen, rejected in zip(values[::2], values[1::2], strict=True)]
    assert sum(margin > 0 for margin in margins) / len(margins) == run.after.success
    assert sum(margins) / len(margins) == pytest.approx(run.after.reward, abs=1e-5)


def test_another_agent_is_scored_by_it_while_the_environment_says_what_succeeds(run: Any, tmp_path: Path) -> None:
    path = run.path / "checkpoint"
    options = {"prompts_per_step": 2, "group_size": 4, "eval_episodes": 4, "max_tokens": 48, "output_dir": tmp_path}
    result = GRPO(scorer=f"reward_model:{path}", **options).train(steps=1)
    assert result.after is not None
    assert {"acc_main", "json_ok", "success"} <= result.after.parts.keys()
    assert result.after.missing == 0
    trajectories = read_trajectories(result.path / "trajectories" / "step-00001.parquet")
    scores = RewardModelScorer(path).score([episode_of(t.messages) for t in trajectories])
    assert [t.score for t in trajectories] == pytest.approx([score.value for score in scores], abs=1e-4)
    assert result.metrics[0]["reward"] == pytest.approx(sum(t.score for t in trajectories) / len(trajectories))


def test_what_is_held_out_is_not_learnt_from() -> None:
    trainer = RewardModel(**SMALL).trainer
    assert len(trainer.judge.pairs) == 10
    assert len(trainer.steps.examples) == 20
    assert not set(trainer.judge.pairs) & set(trainer.steps.examples)


def test_the_same_seed_gives_the_same_run_and_another_seed_another_head(tmp_path: Path) -> None:
    runs = [RewardModel(output_dir=tmp_path, seed=seed, **SMALL).train(steps=2) for seed in (3, 3, 4)]
    losses = [[metrics["loss"] for metrics in run.metrics] for run in runs]
    assert losses[0] == losses[1] != losses[2]


def test_it_learns_from_a_file_and_goes_on_from_a_reward_model(run: Any, tmp_path: Path) -> None:
    write_preferences(tmp_path / "pairs.parquet", generate_preferences("AIOpsTriage", 12, seed=5))
    options = {"data": tmp_path / "pairs.parquet", "held_out": 4, "batch_size": 8, "output_dir": tmp_path / "runs"}
    agent = RewardModel(model=str(run.path / "checkpoint"), **options)
    head = AutoModelForSequenceClassification.from_pretrained(run.path / "checkpoint").score.weight
    torch.testing.assert_close(agent.trainer.student.model.score.weight, head)
    assert agent.train(steps=1).after.episodes == 4


def test_margins_are_those_of_the_data_or_the_difference_of_scores() -> None:
    pairs = generate_preferences("AIOpsTriage", 2)
    agent = RewardModel(margin=True, **SMALL)
    rewards = agent.trainer.student.rewards
    batch = agent.prepare([pairs[0], replace(pairs[1], margin=3.0)], rewards)
    first = pairs[0].score_chosen - pairs[0].score_rejected
    assert batch["margin"].tolist() == pytest.approx([first, first, 3.0, 3.0])
    assert batch["chosen"].tolist() == [True, False, True, False]
    assert batch["pair"].tolist() == [0, 0, 1, 1]
    assert "margin" not in RewardModel(**SMALL).prepare(pairs, rewards)
    with pytest.raises(DataError, match="--margin expects a column 'margin', or 'score_chosen' and 'score_rejected'"):
        agent.prepare([replace(pairs[0], score_rejected=None)], rewards)


def test_a_pair_that_is_too_long_is_refused_and_not_cut(tmp_path: Path) -> None:
    agent = RewardModel(**SMALL)
    (pair,) = generate_preferences("AIOpsTriage", 1)
    long = replace(pair, rejected=(Message("assistant", "long " * 3000),))
    with pytest.raises(DataError, match="more than the 2048 that the model reads; nothing is cut off"):
        agent.prepare([long], agent.trainer.student.rewards)


def test_adapters_learn_and_are_merged_into_what_is_saved(tmp_path: Path) -> None:
    agent = RewardModel(output_dir=tmp_path, lora_rank=4, warmup_steps=0, **SMALL)
    frozen = agent.trainer.student.model.get_input_embeddings().weight
    result = agent.train(steps=2)
    assert not frozen.requires_grad
    scorer = RewardModelScorer(result.path / "checkpoint")
    pair = agent.trainer.judge.pairs[0]
    conversations = [agent.trainer.student.rewards.encode(pair.prompt + side) for side in (pair.chosen, pair.rejected)]
    values = [
        score.value for score in scorer.score([episode_of(pair.prompt + s) for s in (pair.chosen, pair.rejected)])
    ]
    assert values == pytest.approx(agent.trainer.student.rewards.rewards([conversations]), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"center_coeff": 0.1}, ConfigError, "Did you mean 'center_coef'"),
        ({"center_coef": -1}, ConfigError, "greater than or equal to 0"),
        (
            {"examples": 10, "held_out": 10},
            DataError,
            r"more than the 10 preferences .*\(--held-out\), got 10",
        ),
        ({"data": Path("nowhere.parquet")}, DataError, "no such file"),
        ({"env": "AIOpsTriage", "model": "./nowhere"}, ModelError, "no such directory"),
    ],
)
def test_what_does_not_work_is_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RewardModel(**{**SMALL, **options}).trainer  # noqa: B018  # it is made here


def test_a_scorer_that_does_not_load_is_refused_before_the_model_is_looked_for() -> None:
    agent = GRPO(env="AIOpsTriage", model="nowhere/at/all", scorer="reward_model:nowhere")
    with pytest.raises(ModelError, match="reward_model:nowhere: no such directory"):
        agent.trainer  # noqa: B018  # it is made here


def test_the_command_prints_its_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--examples", "30", "--held-out", "10", "--batch-size", "4", "--steps", "1"]
    assert main([*arguments, "--output-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "10 held-out pairs" in out
    assert "accuracy" in out
    assert main(["--data", "nowhere.parquet", "--output-dir", str(tmp_path)]) == 2
    assert "no such file" in capsys.readouterr().err

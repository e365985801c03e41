"""Metrics are in a table, and are what plain NumPy makes of a run's files."""

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from llmgym import register_env
from llmgym.agents import GRPO
from llmgym.cli import agents
from llmgym.envs.aiops import AIOpsTriage
from llmgym.learn.losses.clipped_policy import clipped_surrogate
from llmgym.learn.losses.policy_gradient import clip_fractions
from llmgym.report.metrics import EVERY, TABLE, metric_of
from llmgym.train.agent import Agent
from tools import metrics_page

SMALL = {
    **{"eval_episodes": 0, "held_out": 4, "max_tokens": 40, "sample_every": 0, "updates_per_step": 1},
    **{"prompts_per_step": 2, "group_size": 2, "examples": 8, "batch_size": 4},
}


def agent_of(name: str, **options: Any) -> Agent:
    """Make an agent by the name of its algorithm."""
    found = vars(importlib.import_module(f"llmgym.agents.{name}")).values()
    kinds = [
        one for one in found if inspect.isclass(one) and issubclass(one, Agent) and one.__dict__.get("name") == name
    ]
    known = kinds[0].config_class.options()
    return kinds[0](**{key: value for key, value in {**SMALL, **options}.items() if key in known})


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """A training step of every algorithm."""
    found = {}
    for name in agents():
        run = agent_of(name, env="AIOpsTriage", output_dir=tmp_path_factory.mktemp(name)).train(steps=1)
        found[name] = dict(run.metrics[0])
    return found


@pytest.mark.slow
def test_every_metric_of_every_algorithm_is_in_the_table(rows: dict[str, dict[str, float]]) -> None:
    assert set(rows) == set(EVERY)
    for agent, row in rows.items():
        for name in row:
            metric = metric_of(name)
            assert metric is not None, f"{agent} measures {name}, which is not in the table"
            assert agent in metric.agents, f"{agent} measures {name}, and the table does not say so"


@pytest.mark.slow
def test_every_row_of_the_table_occurs_or_says_when_it_does(rows: dict[str, dict[str, float]]) -> None:
    for metric in TABLE:
        for agent in metric.agents:
            occurs = any(metric.pattern.fullmatch(name) for name in rows[agent])
            assert occurs or metric.when, f"{agent} does not measure {metric.name}, and the table does not say why"


def test_names_are_in_the_table_once_and_every_one_has_a_meaning() -> None:
    names = [metric.name for metric in TABLE]
    assert len(names) == len(set(names))
    for metric in TABLE:
        assert metric_of(metric.name) is metric
        assert metric.meaning[0].isupper()
        assert not metric.meaning.endswith(".")
        assert set(metric.agents) <= set(EVERY)


def test_the_page_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert metrics_page.main(["--check"]) == 0, capsys.readouterr().out


@register_env("Shaky-v0")
class Shaky(AIOpsTriage):
    """Triage in which some environments break in the second round, whatever is said."""

    def respond(self, action: str) -> str | None:
        if self.np_random.random() < 0.3:
            raise RuntimeError("it broke")
        return super().respond(action)


@pytest.fixture(scope="module")
def shaky(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """The metrics of a step in which episodes are cut off and fail, and its episodes as they are on the disk."""
    options = {"max_tokens": 30, "max_failure_rate": 1.0, "prompts_per_step": 6, "group_size": 4, "env_retries": 0}
    run = agent_of("grpo", env="Shaky-v0", output_dir=tmp_path_factory.mktemp("shaky"), **options).train(steps=1).path
    (line,) = (run / "metrics.jsonl").read_text().splitlines()
    return json.loads(line), pq.read_table(run / "trajectories" / "step-00001.parquet").to_pylist()


def test_metrics_of_episodes_are_what_numpy_makes_of_the_files(
    shaky: tuple[dict[str, float], list[dict[str, Any]]],
) -> None:
    row, episodes = shaky
    failed = np.array([one["ending"] == "env_error" for one in episodes])
    assert 0 < failed.sum() < len(episodes) == 24
    sampled = np.array([sum(one["mask"]) for one in episodes])
    turns = np.array([len(one["replies"]) for one in episodes])
    replies = [(each["stop"] - each["start"], each["finish_reason"]) for one in episodes for each in one["replies"]]
    lengths, cut = np.array([n for n, _ in replies]), np.array([reason == "length" for _, reason in replies])
    last = np.array([bool(one["replies"]) and one["replies"][-1]["finish_reason"] == "length" for one in episodes])
    assert 0 < cut.sum() < len(cut)
    assert 0 < last.sum() < len(last)
    rewards = np.array([one["score"] for one in episodes if one["score"] is not None])
    prompts = np.array([one["mask"].index(True) for one in episodes])
    whole = np.array([len(one["tokens"]) for one in episodes])
    log_probs = np.concatenate([np.array(one["log_probs"])[one["mask"]] for one in episodes])
    expected = {
        "reward": rewards.mean(),
        "reward/std": rewards.std(ddof=1),
        "reward/min": rewards.min(),
        "reward/p10": np.percentile(rewards, 10),
        "reward/p90": np.percentile(rewards, 90),
        "reward/max": rewards.max(),
        "scores_missing": failed.sum(),
        "reply_tokens": lengths.mean(),
        "reply_tokens/min": lengths.min(),
        "reply_tokens/max": lengths.max(),
        "reply_tokens/ended": lengths[~cut].mean(),
        "reply_tokens/ended/max": lengths[~cut].max(),
        "reply_tokens/cut_off": lengths[cut].mean(),
        "reply_tokens/cut_off/max": lengths[cut].max(),
        "reply_tokens/effective": sampled[~failed].sum() / turns[~failed].sum(),
        "replies_cut_off": cut.mean(),
        "episode_tokens": sampled.mean(),
        "episode_tokens/min": sampled.min(),
        "episode_tokens/max": sampled.max(),
        "episode_tokens/ended": sampled[~last].mean(),
        "episode_tokens/ended/min": sampled[~last].min(),
        "episode_tokens/ended/max": sampled[~last].max(),
        "episode_tokens/cut_off": sampled[last].mean(),
        "episode_tokens/cut_off/max": sampled[last].max(),
        "episode_tokens/effective": sampled[~failed].mean(),
        "episode_tokens/effective/max": sampled[~failed].max(),
        "episode_tokens_trained": sampled[~failed].mean(),
        "episodes_cut_off": last.mean(),
        "episodes_failed": failed.mean(),
        "episodes_silent": (turns == 0).mean(),
        "turns": turns.mean(),
        "turns/min": turns.min(),
        "turns/max": turns.max(),
        "turns/effective": turns[~failed].mean(),
        "prompt_tokens": prompts.mean(),
        "prompt_tokens/min": prompts.min(),
        "prompt_tokens/max": prompts.max(),
        "later_tokens": (whole - prompts).mean(),
        "later_tokens/min": (whole - prompts).min(),
        "later_tokens/max": (whole - prompts).max(),
        "tokens": whole.sum(),
        "ending/env_error": failed.mean(),
        "ending/terminated": (~failed).mean(),
        "entropy": -log_probs.mean(),
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert row["groups_without_signal/share"] == row["groups_without_signal"] / 6


def test_the_parts_of_a_step_take_no_longer_than_the_step(
    shaky: tuple[dict[str, float], list[dict[str, Any]]],
) -> None:
    row, episodes = shaky
    assert 0 < row["generation_seconds"] < row["rollout_seconds"]
    parts = row["rollout_seconds"] + row["learning_seconds"] + row["hand_over_seconds"]
    assert 0.9 * row["seconds"] < parts <= row["seconds"]
    assert row["generated_per_second"] * row["generation_seconds"] == pytest.approx(row["tokens"] - sum_of(episodes))
    assert 0.05 < row["memory_gib"] < 64


def sum_of(episodes: list[dict[str, Any]]) -> int:
    """Count the tokens that nobody sampled."""
    return sum(not sampled for one in episodes for sampled in one["mask"])


def test_the_time_of_evaluations_and_checkpoints_is_told_by_the_step_after(tmp_path: Path) -> None:
    options = {**SMALL, "eval_episodes": 20, "eval_every": 2, "save_every": 1}
    for unknown in ("held_out", "examples", "batch_size"):
        del options[unknown]
    rows = GRPO(output_dir=tmp_path, **options).train(steps=4).metrics
    assert [row["evaluation_seconds"] > 0.05 for row in rows] == [True, False, True, False]
    assert [row["saving_seconds"] > 0.01 for row in rows] == [False, True, True, True]


@pytest.mark.parametrize("seed", range(5))
def test_clip_fractions_are_shares_of_sampled_tokens(seed: int) -> None:
    rng = np.random.default_rng(seed)
    log_ratio, advantage = rng.normal(0, 0.3, (4, 9)), rng.normal(0, 1, (4, 9))
    mask = rng.random((4, 9)) < 0.7
    found = clip_fractions(*map(torch.tensor, (log_ratio, advantage, mask)), (0.1, 0.3))
    ratio, sign = np.exp(log_ratio[mask]), np.sign(advantage[mask])  # nothing but sampled tokens
    low, high = ratio < 0.9, ratio > 1.3
    expected = {
        "clip_fraction": (low | high).mean(),
        "clip_fraction/low": low.mean(),
        "clip_fraction/high": high.mean(),
        "clipped/low": (low & (sign < 0)).mean(),
        "clipped/high": (high & (sign > 0)).mean(),
    }
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected)


def test_a_clipped_token_has_no_gradient_and_every_other_one_has() -> None:
    log_ratio = torch.tensor([[-0.5, -0.5, 0.5, 0.5, 0.0]], requires_grad=True)
    advantage = torch.tensor([[-1.0, 1.0, -1.0, 1.0, 1.0]])
    clipped_surrogate(log_ratio, advantage, (0.2, 0.2)).sum().backward()
    found = clip_fractions(log_ratio.detach(), advantage, torch.ones(1, 5, dtype=torch.bool), (0.2, 0.2))
    assert log_ratio.grad is not None
    silent = float((log_ratio.grad == 0).float().mean())
    assert float(found["clipped/low"] + found["clipped/high"]) == pytest.approx(silent) == pytest.approx(0.4)

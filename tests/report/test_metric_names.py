"""Names of other libraries mean here what they mean there."""

from pathlib import Path
from typing import Any

import pytest

from llmgym.agents import GRPO, PPO
from llmgym.report.metric_names import ALIASES, TRL, VERL, Alias, renamed
from llmgym.report.metrics import metric_of

SMALL: dict[str, Any] = {
    **{"eval_episodes": 0, "prompts_per_step": 4, "group_size": 4, "max_tokens": 40, "sample_every": 0},
    **{"updates_per_step": 2, "learning_rate": 5e-3, "warmup_steps": 0},
}


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """A step of GRPO with everything that it can measure on one machine, in an environment with tools."""
    options: dict[str, Any] = {"kl_coef": 0.1, "mismatch_correction": "truncate", "env": "Sums", "model": "tiny-tools"}
    options["env_kwargs"] = {"calculator": True}
    run = GRPO(output_dir=tmp_path_factory.mktemp("runs"), **options, **SMALL).train(steps=1)
    return dict(run.metrics[0])


@pytest.mark.parametrize("aliases", [TRL, VERL], ids=["trl", "verl"])
def test_there_are_at_least_forty_names_each_for_metrics_of_the_table(aliases: tuple[Alias, ...]) -> None:
    theirs = [alias.theirs for alias in aliases]
    assert len(theirs) == len(set(theirs)) >= 40
    for alias in aliases:
        assert all(map(metric_of, alias.ours)), alias
        assert len(alias.ours) == 1 or (alias.made is not None and alias.note), alias


def test_our_own_names_are_left_alone(row: dict[str, float]) -> None:
    assert renamed(row, "llmgym") == row
    assert set(ALIASES) == {"llmgym", "trl", "verl"}


def test_names_of_trl_are_these_numbers(row: dict[str, float]) -> None:
    found = renamed(row, "trl")
    assert 0 < row["part/tools/failures"] < row["part/tools/calls"]
    expected = {
        "train/global_step": 1,
        "train/reward": row["reward"],
        "train/reward_std": row["reward/std"],
        "train/frac_reward_zero_std": row["groups_without_signal"] / 4,
        "train/completions/mean_length": row["episode_tokens"],
        "train/completions/max_terminated_length": row["episode_tokens/ended/max"],
        "train/completions/clipped_ratio": row["episodes_cut_off"],
        "train/tools/call_frequency": row["part/tools/calls"],
        "train/tools/failure_frequency": row["part/tools/failures"] / row["part/tools/calls"],
        "train/clip_ratio/region_mean": row["clipped/low"] + row["clipped/high"],
        "train/objective/entropy": row["entropy"] * row["episode_tokens"],
        "train/val/contain_eos_token": 1 - row["episodes_cut_off"],
        "train/kl": row["kl_to_ref"],
        "train/sampling/importance_sampling_ratio/mean": row["mismatch/weight"],
        "train/step_time": row["seconds"],
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert "reward" not in found
    assert found["episodes/trained"] == row["episodes/trained"]  # which has no name there


def test_names_of_verl_are_these_numbers(row: dict[str, float]) -> None:
    found = renamed(row, "verl", "Sums-v0")
    expected = {
        "training/global_step": 1,
        "critic/score/mean": row["reward"],
        "critic/score/max": row["reward/max"],
        "critic/rewards/mean": row["reward"],
        "critic/advantages/min": row["advantage/min"],
        "response_length/mean": row["later_tokens"],
        "prompt_length/max": row["prompt_tokens/max"],
        "num_turns/mean": 2 * row["turns"],
        "num_turns/max": 2 * row["turns/max"],
        "tool_call_counts/mean": row["part/tools/calls"],
        "actor/entropy": row["entropy"],
        "actor/pg_clipfrac": row["clipped/low"] + row["clipped/high"],
        "actor/ppo_kl": row["kl_approx"],
        "actor/kl_loss": row["kl_to_ref"],
        "rollout_corr/kl": -row["mismatch/log_ratio_mean"],
        "timing_s/gen": row["rollout_seconds"],
        "timing_per_token_ms/gen": 1000 * row["rollout_seconds"] / (row["later_tokens"] * 16),
        "perf/total_num_tokens": row["tokens"],
        "perf/throughput": row["tokens"] / row["seconds"],
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_rewards_that_are_charged_for_a_divergence_are_not_called_theirs(tmp_path: Path) -> None:
    charged = PPO(output_dir=tmp_path, kl_coef=0.1, kl_in="reward", **SMALL).train(steps=1).metrics[0]
    found = renamed(charged, "verl")
    assert found["critic/score/mean"] == charged["reward"]
    assert not {"critic/rewards/mean", "actor/kl_coef"} & found.keys()
    assert found["critic/values/mean"] == charged["value"]


def test_evaluations_and_parts_are_named_after_what_is_evaluated() -> None:
    row = {"eval/success": 0.5, "eval/reward": 0.6, "eval/part/json_ok": 0.9, "part/json_ok": 0.8}
    assert renamed(row, "trl") == {
        "eval/success": 0.5,
        "eval/reward": 0.6,
        "eval/rewards/json_ok/mean": 0.9,
        "train/rewards/json_ok/mean": 0.8,
    }
    assert renamed(row, "verl", "Mine-v0") == {
        "val-core/Mine-v0/acc/mean@1": 0.5,
        "val-aux/Mine-v0/reward/mean@1": 0.6,
        "val-aux/Mine-v0/json_ok/mean@1": 0.9,
        "part/json_ok": 0.8,
    }

"""A model that ships with llmgym brings the options that suit it; any other model gets the algorithm's own."""

from pathlib import Path
from typing import Any

import pytest

from llmgym.agents import DPO, GRPO, PPO, SFT, RewardModel
from llmgym.config.presets import preset_of
from llmgym.demo import TINY_PATH
from llmgym.errors import ConfigError
from llmgym.train.agent import Agent


@pytest.mark.parametrize(("agent", "rate", "usual"), [(GRPO, 5e-4, 1e-6), (DPO, 1e-4, 1e-6), (SFT, 5e-4, 1e-5)])
def test_the_bundled_model_has_learning_rates_of_its_own(agent: type[Agent], rate: float, usual: float) -> None:
    assert agent().config.learning_rate == rate
    assert agent(learning_rate=2e-3).config.learning_rate == 2e-3
    assert agent(model=str(TINY_PATH), env="AIOpsTriage").config.learning_rate == usual


def test_what_is_given_counts_for_more_than_a_preset() -> None:
    assert PPO().learning_rates == {"critic_network": 1e-3}
    assert PPO(critic_learning_rate=1e-2).learning_rates == {"critic_network": 1e-2}
    assert not GRPO(measure_kl="never").keeps_reference
    assert GRPO().keeps_reference


def test_an_environment_has_the_arguments_that_suit_a_model_unless_others_are_given() -> None:
    assert GRPO(model="tiny-tools").config.environment.env == "llmgym/Sums-v0"
    assert GRPO(model="tiny-tools").config.environment.env_kwargs == {"calculator": True}
    assert GRPO(env="KuhnPoker", model="tiny-tools").config.environment.env_kwargs == {"difficulty": 0}
    given = {"difficulty": 2}
    assert GRPO(env="KuhnPoker", model="tiny-tools", env_kwargs=given).config.environment.env_kwargs == given
    assert GRPO(env="Countdown", model="tiny-tools").config.environment.env_kwargs == {}
    assert GRPO(env="KuhnPoker").config.environment.env_kwargs == {}


@pytest.mark.parametrize("agent", [DPO, SFT, RewardModel])
def test_a_run_on_data_has_a_presets_environment_only_if_that_takes_part(agent: type[Agent]) -> None:
    assert agent(data="mine.parquet").config.environment.env is None
    assert agent(data="mine.parquet", env="AIOpsTriage").config.environment.env == "AIOpsTriage"
    assert agent().config.environment.env == "llmgym/AIOpsTriage-v0"
    assert DPO(data="mine.parquet", eval_episodes=2).config.environment.env == "llmgym/AIOpsTriage-v0"


@pytest.mark.parametrize("agent", [GRPO, DPO, SFT, RewardModel])
def test_a_model_of_ones_own_is_asked_at_once_which_environment_it_shall_play(agent: type[Agent]) -> None:
    with pytest.raises(ConfigError, match="env: expected an environment"):
        agent(model="nowhere/at/all")


def test_a_directory_has_no_preset() -> None:
    assert preset_of(str(TINY_PATH)) is None
    preset = preset_of("tiny")
    assert preset is not None
    assert preset.weights == TINY_PATH


def test_a_run_warns_first_that_the_bundled_model_only_knows_triage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"prompts_per_step": 1, "group_size": 2, "max_tokens": 4, "eval_episodes": 0}
    GRPO(env="benchmarks.where_is:WhereIs", output_dir=tmp_path, **options).train(steps=1)
    assert "'tiny' was made for llmgym/AIOpsTriage-v0, and knows nothing else" in capsys.readouterr().out
    GRPO(env="AIOpsTriage", output_dir=tmp_path, **options).train(steps=1)
    assert "knows nothing else" not in capsys.readouterr().out

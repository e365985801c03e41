"""Configurations refuse what they do not know, and the command line wins over the file."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmgym.agents import GRPO
from llmgym.agents.grpo import GRPOConfig
from llmgym.cli import agents
from llmgym.config import Config, parse_command_line, read_yaml
from llmgym.config.sections import Learner
from llmgym.errors import ConfigError
from llmgym.train.agent import Agent


def parse(*words: str) -> GRPOConfig:
    config = parse_command_line(GRPOConfig, words, "test")
    assert config is not None
    return config


def test_every_option_has_a_help_text() -> None:
    assert all(option.field.description for option in GRPOConfig.options().values())


def test_help_shows_every_option_once_among_others_of_its_kind(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    printed = capsys.readouterr().out
    boxes = re.split(r"\n ([a-z-]+) options +\n", printed)
    found = dict(zip(boxes[1::2], boxes[2::2], strict=True))
    sections = ["run", "environment", "model", "learner", "saving", "budget", "tracking", "policy"]
    sections += ["conversation", "sampling", "engine"]
    sections += ["evaluation", "tasks", "rollout", "cluster", "updates", "objective", "mismatch", "grpo"]
    assert list(found) == sections
    assert "--temperature" in found["sampling"]
    assert "--clip-epsilon" in found["grpo"]
    for name in GRPOConfig.options():
        assert len(re.findall(rf"^ +--{name.replace('_', '-')}[ ,]", printed, re.MULTILINE)) == 1


def test_a_configuration_of_a_users_own_may_have_the_name_of_another() -> None:
    own = type("GRPOConfig", (GRPOConfig,), {"__annotations__": {"patience": int}, "patience": 3, "__doc__": "Mine."})
    config = parse_command_line(own, ["--patience", "5", "--steps", "2"], "test")
    assert (config.patience, config.run.steps) == (5, 2)
    nameless = type("Config", (Config,), {"__annotations__": {"many": int}, "many": 3})
    assert parse_command_line(nameless, ["--many", "4"], "test").many == 4


def test_options_on_the_command_line_win_over_those_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text("steps: 7\ngroup_size: 4\nenv_kwargs: {difficulty: 3}\ngradient_checkpointing: true\n")
    config = parse("--config", str(file), "--group-size", "6")
    assert (config.run.steps, config.rollout.group_size) == (7, 6)
    assert config.environment.env_kwargs == {"difficulty": 3}
    assert config.policy.gradient_checkpointing is True
    assert parse("--config", str(file), "--no-gradient-checkpointing").policy.gradient_checkpointing is False


def test_a_section_and_an_option_of_the_same_section_may_both_be_given(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text("run: {seed: 3}\nsteps: 2\n")
    config = parse("--config", str(file))
    assert (config.run.seed, config.run.steps) == (3, 2)


def test_env_kwargs_are_typed_words() -> None:
    words = ["difficulty=2", "language=zh", "weights={evidence: 0.2}"]
    assert parse("--env-kwargs", *words).environment.env_kwargs == {
        "difficulty": 2,
        "language": "zh",
        "weights": {"evidence": 0.2},
    }


@pytest.mark.parametrize("again", ["--env-kwargs", "--env_kwargs"])
def test_env_kwargs_that_are_given_twice_add_up(again: str) -> None:
    config = parse("--env-kwargs", "difficulty=2", "a=1", "--steps", "3", again, "language=zh", "a=2", "--seed", "4")
    assert config.environment.env_kwargs == {"difficulty": 2, "language": "zh", "a": 2}
    assert (config.run.steps, config.run.seed) == (3, 4)


def test_env_kwargs_of_both_places_are_merged(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text("env_kwargs: {difficulty: 3, language: en}\n")
    config = parse("--config", str(file), "--env-kwargs", "language=zh")
    assert config.environment.env_kwargs == {"difficulty": 3, "language": "zh"}


@pytest.mark.parametrize("word", ["a=[1", "a=@x", "a", "=1"])
def test_an_env_kwarg_that_does_not_parse_exits_with_2(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse("--env-kwargs", word)
    assert exit_.value.code == 2
    assert "expected" in capsys.readouterr().err


def test_what_is_printed_can_be_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_command_line(GRPOConfig, ["--print-config", "--steps", "3", "--env-kwargs", "a=1"], "test") is None
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out)
    assert GRPOConfig.from_yaml(file) == GRPOConfig.of({"steps": 3, "env_kwargs": {"a": 1}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grup_size: 3", "Unknown option 'grup_size'. Did you mean 'group_size'"),
        ("group_size: 1", "advantage: .*nothing to be compared with"),
        ("steps: many", "steps: .*integer.*got 'many'"),
        ("temperature: true", "temperature: .*true or false.*got True"),
        ("learning_rate: .inf", "learning_rate: .*finite number"),
        ("top_p: 0.9", "mismatch_correction: .*another distribution than the one that learns.*expected 'truncate'"),
        ("min_p: 0.1", "mismatch_correction: .*another distribution"),
        ("top_k: 5", "mismatch_correction: .*expected 'truncate' or 'mask', or top_p 1, top_k 0 and min_p 0"),
        ("mismatch_threshold: 1.0", "mismatch_threshold: .*greater than 1"),
        ("- steps", "has to hold options"),
        ("rollout: 5\ngroup_size: 4", "rollout: expected options as `key: value` lines, got 5"),
        ("steps: [", "Cannot read the configuration"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        parse("--config", str(file))


@pytest.mark.parametrize("correction", ["truncate", "mask"])
def test_top_p_and_top_k_are_for_runs_that_correct_for_them(correction: str) -> None:
    config = parse("--top-p", "0.9", "--top-k", "5", "--mismatch-correction", correction)
    assert (config.sampling.top_p, config.sampling.top_k, config.mismatch.correction) == (0.9, 5, correction)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        parse("--config", "nowhere.yaml")


def test_an_unknown_option_names_the_nearest_and_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse("--grup-size", "3")
    assert exit_.value.code == 2
    assert "--group-size" in capsys.readouterr().err


def agent_of(file: Path) -> type[Agent]:
    """The agent whose name a file in configs begins with."""
    name = max((name for name in agents() if file.stem.startswith(f"{name}_")), key=len)
    classes = vars(importlib.import_module(f"llmgym.agents.{name}")).values()
    (agent,) = (one for one in classes if isinstance(one, type) and vars(one).get("name") == name)
    return agent


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parent.parent / "configs").glob("*.yaml")), ids=lambda f: f.stem
)
def test_every_yaml_in_configs_is_valid_and_holds_only_what_differs(file: Path) -> None:
    config_class = agent_of(file).config_class
    given = read_yaml(file)
    assert config_class.of(given)
    defaults = yaml.safe_load(config_class().to_yaml())
    assert {name for name, value in given.items() if value == defaults[name]} == set()


def test_every_agent_has_a_configuration_to_start_from() -> None:
    files = (Path(__file__).parent.parent / "configs").glob("*.yaml")
    assert {agent_of(file).name for file in files} == set(agents())


def test_a_model_may_be_given_as_a_path(tmp_path: Path) -> None:
    assert GRPO(env="AIOpsTriage", model=tmp_path).config.model.name == str(tmp_path)


def test_adapters_learn_ten_times_as_fast_unless_told() -> None:
    assert GRPOConfig.of({"model": "owner/model"}).learning_rate == pytest.approx(1e-6)
    assert GRPOConfig.of({"model": "owner/model", "lora_rank": 8}).learning_rate == pytest.approx(1e-5)


def test_sections_keep_what_an_algorithm_has_unless_told() -> None:
    class Gentle(GRPOConfig):
        learner: Learner = Learner(warmup_steps=7)

    config = Gentle.of({"weight_decay": 0.1})
    assert (config.learner.warmup_steps, config.learner.weight_decay) == (7, 0.1)
    assert Gentle.of(config.flat()) == config
    assert Gentle.of(yaml.safe_load(config.to_yaml())) == config


def test_no_two_options_of_an_algorithm_have_one_name() -> None:
    for name in agents():
        config = agent_of(Path(f"{name}_x")).config_class()
        inner = [kind.model_fields for kind in config.sections().values()]
        own = [field for field in type(config).model_fields if field not in config.sections()]
        assert len(config.flat()) == len(own) + sum(map(len, inner))


def test_settled_values_replace_none() -> None:
    config = GRPOConfig().with_options(learning_rate=1e-4, eval_episodes=3, clip_epsilon=(0.1, 0.1), steps=2)
    assert (config.learner.learning_rate, config.evaluation.episodes, config.run.steps) == (1e-4, 3, 2)
    assert config.clip_epsilon == (0.1, 0.1)


@pytest.mark.parametrize(
    ("name", "needs"), [("env_timeout", {"isolate_env": True}), ("scorer_timeout", {"scorer_workers": 1})]
)
def test_a_limit_is_refused_where_it_limits_nothing(name: str, needs: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{name}: .* expected {next(iter(needs))} too"):
        GRPOConfig.of({name: 3.0})
    assert GRPOConfig.of({name: 3.0, **needs}).flat()[name] == 3.0

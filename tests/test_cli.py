"""The console script lists, checks and trains."""

import pytest

import llmgym.agents
from llmgym import cli
from llmgym.cli import agents


def test_it_lists_the_environments(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["envs"]) == 0
    assert "llmgym/AIOpsTriage-v0" in capsys.readouterr().out.splitlines()


def test_it_checks_an_environment(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "AIOpsTriage"]) == 0
    assert "all checks passed" in capsys.readouterr().out


def test_it_hands_an_agents_options_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["grpo", "--print-config", "--steps", "3"]) == 0
    assert "steps: 3" in capsys.readouterr().out


def test_a_mistake_is_one_message_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "AIOpsTrige"]) == 2
    assert capsys.readouterr().err.startswith("llmgym: No environment is registered as 'AIOpsTrige'. Did you mean")


def test_every_algorithm_can_be_imported_from_the_package() -> None:
    assert {getattr(llmgym.agents, name).name for name in llmgym.agents.__all__} == set(agents())

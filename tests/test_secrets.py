"""Secrets among options: where they come from, and that no file has them."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

import llmgym
from llmgym import Episode, TextEnv
from llmgym.agents import GRPO
from llmgym.agents.grpo import main
from llmgym.errors import ConfigError
from llmgym.registry import make_env
from llmgym.secrets import REDACTED, with_secrets, without_secrets, without_secrets_in
from tests.canary_keys import files_with

CANARY = "sk-canary-5f0c"
SMALL: dict[str, Any] = {
    "steps": 1,
    "prompts_per_step": 1,
    "group_size": 2,
    "max_tokens": 2,
    "eval_episodes": 2,
    "save_every": 1,
    "sample_every": 0,
}


@llmgym.register_env("Locked-v0")
class Locked(TextEnv):
    """Wants a key."""

    def __init__(self, api_key: str = "", url: str = "") -> None:
        super().__init__()
        assert api_key in ("", CANARY), "a wrong key"

    def begin(self) -> str:
        """Say hello."""
        return "Hello."

    def score(self, episode: Episode) -> float:
        """Pay for length."""
        return float(len(episode.actions[-1]))


def words(**options: Any) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def assert_in_no_file(directory: Path) -> None:
    assert sum(path.is_file() for path in directory.rglob("*")) > 8
    assert not list(files_with(CANARY, directory))


@pytest.mark.parametrize("key", ["api_key", "API-KEY", "hub_token", "client_secret", "password", "authorization"])
def test_values_of_telling_keys_are_stars_wherever_they_stand(key: str) -> None:
    for value in (CANARY, 12345, [CANARY], {"inner": CANARY}):
        shown = without_secrets({"env_kwargs": {key: value, "deep": [{key: value}]}})
        assert CANARY not in str(shown)
        assert "12345" not in str(shown)
        assert REDACTED in str(shown)


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 5, "micro_batch_tokens": 8, "skip_tokenizer_init": True, "tokenizer_path": "x"},
        {"api_key": None, "use_key": False},
        {"api_key": "env:MY_KEY"},
        {"url": "http://host/a@b", "mail": "me@host"},
    ],
)
def test_what_is_no_secret_stays(options: dict[str, Any]) -> None:
    assert without_secrets(options) == options


def test_a_command_line_is_shown_without_its_secrets() -> None:
    given = ["--env-kwargs", f"api_key={CANARY}", "n=1", "--hub-token", CANARY, "--steps", "2", f"http://a:{CANARY}@h/"]
    shown = without_secrets_in(given)
    assert CANARY not in str(shown)
    assert shown == ["--env-kwargs", "api_key=***", "n=1", "--hub-token", "***", "--steps", "2", "http://***@h/"]


def test_an_environment_variable_is_read_where_the_environment_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKED_KEY", CANARY)
    make_env("Locked-v0", api_key="env:LOCKED_KEY").close()
    found = with_secrets({"a": [{"b": "env:LOCKED_KEY"}], "c": "env:no name"})
    assert found == {"a": [{"b": CANARY}], "c": "env:no name"}
    monkeypatch.delenv("LOCKED_KEY")
    with pytest.raises(ConfigError, match="api_key: expected an environment variable 'LOCKED_KEY', but there is none"):
        make_env("Locked-v0", api_key="env:LOCKED_KEY")


def test_what_fails_to_be_made_does_not_tell_its_secrets() -> None:
    with pytest.raises(ConfigError) as refused:
        make_env("Locked-v0", api_key=CANARY, url="x", nonsense=1)
    assert CANARY not in str(refused.value)
    with pytest.raises(ConfigError) as refused:
        make_env("Locked-v0", api_key=CANARY, max_episode_steps="many")
    assert CANARY not in str(refused.value)


@pytest.mark.slow
def test_no_file_of_a_run_has_a_secret_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    given = [*words(env="Locked-v0", output_dir=tmp_path, **SMALL)]
    monkeypatch.setattr("sys.argv", ["grpo", *given, "--env-kwargs", f"api_key={CANARY}"])
    main()
    (run,) = tmp_path.iterdir()
    assert_in_no_file(tmp_path)
    assert yaml.safe_load((run / "config.yaml").read_text())["env_kwargs"] == {"api_key": REDACTED}
    assert f"api_key={REDACTED}" in json.loads((run / "environment.json").read_text())["arguments"]
    main([*given, "--steps", "2", "--resume", "--env-kwargs", f"api_key={CANARY}"])
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert main(["--config", str(run / "config.yaml"), "--output-dir", str(tmp_path / "other")]) == 2
    told = capfd.readouterr()
    assert "api_key: secrets are left out of files" in told.err
    assert CANARY not in told.out + told.err
    assert_in_no_file(tmp_path)


@pytest.mark.slow
def test_the_files_of_a_run_have_the_modes_that_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        run = GRPO(env="Locked-v0", output_dir=tmp_path, **SMALL).train().path
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in run.rglob("*") if path.is_file()}
    assert (run / "checkpoint" / "model.safetensors").exists()
    assert modes == {0o640}

"""The console script lists, checks, audits and trains."""

import errno
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import llmgym
import llmgym.agents
from llmgym import cli
from llmgym.cli import agents
from llmgym.envs.adapters import ADAPTERS
from llmgym.envs.checker import CHECKS


class Coin(llmgym.TextEnv):
    """Call a coin. It shows what it will be.

    Args:
        sides: How many there are.
    """

    def __init__(self, weight: float, sides: int = 2, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.weight, self.sides = weight, sides

    def begin(self) -> str:
        self.episode.task = str(self.np_random.integers(self.sides))
        return f"It will be {self.episode.task}."

    def score(self, episode: llmgym.Episode) -> float:
        return self.weight * (episode.task in episode.actions[-1])

    def expert(self) -> Iterator[str]:
        yield self.episode.task


@pytest.fixture(autouse=True)
def coin() -> Iterator[None]:
    llmgym.register_env("acme/Coin-v0")(Coin)
    yield
    del gymnasium.registry["acme/Coin-v0"]
    llmgym.registry._IDS.remove("acme/Coin-v0")


def test_it_lists_the_environments_with_a_sentence_and_their_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["envs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "llmgym/AIOpsTriage-v0" in lines
    assert "    --env-kwargs difficulty=1 language=en split=train weights=null" in lines
    here = lines.index("acme/Coin-v0")
    assert lines[here : here + 3] == ["acme/Coin-v0", "    Call a coin.", "    --env-kwargs weight=... sides=2"]


def test_the_list_can_be_read_by_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["envs", "--json"]) == 0
    assert {
        "id": "acme/Coin-v0",
        "description": "Call a coin.",
        "required": ["weight"],
        "defaults": {"sides": 2},
    } in json.loads(capsys.readouterr().out)


def test_it_lists_what_there_is_in_other_packages_and_how_to_install_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["envs"]) == 0
    listed = capsys.readouterr().out
    for package, adapter in ADAPTERS.items():
        install = "" if adapter.extra is None else f" (pip install 'llmgym-rl[{adapter.extra}]')"
        assert f"\n{package}:{adapter.example}\n    One of {adapter.about}{install}.\n" in listed


def test_an_environment_that_cannot_be_imported_is_listed_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    llmgym.register_entry_point("acme/Lost-v0", "no_such_module:Lost")
    try:
        assert cli.main(["envs"]) == 0
        assert "acme/Lost-v0\n    cannot be imported (ModuleNotFoundError: No module" in capsys.readouterr().out
    finally:
        del gymnasium.registry["acme/Lost-v0"]
        llmgym.registry._IDS.remove("acme/Lost-v0")


def test_it_checks_an_environment_with_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", "AIOpsTriage", "--env-kwargs", "difficulty=2", "--env-kwargs", "language=zh", "--seeds", "3"]
    assert cli.main(words) == 0
    output = capsys.readouterr().out
    assert "all checks passed" in output
    assert "1 on 3 seeds" in output


def test_a_check_that_fails_says_so_and_gives_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "acme/Coin", "--env-kwargs", "weight=0.5"]) == 1
    output = capsys.readouterr().out
    assert "failed" in output
    assert "The expert earned 0.5 on seed 0, expected 1.0." in output
    assert "a mistake earns less" not in output


def test_what_was_checked_can_be_read_by_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "acme/Coin", "--env-kwargs", "weight=1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["env"], result["failure"]) == ("acme/Coin", None)
    assert [one["check"] for one in result["checks"]] == [check.name for check in CHECKS]
    assert cli.main(["check", "acme/Coin", "--env-kwargs", "weight=0.5", "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["failure"] == "The expert earned 0.5 on seed 0, expected 1.0."
    assert result["checks"][-1]["result"] == "failed"


@pytest.mark.parametrize("command", ["check", "audit"])
def test_json_is_alone_on_standard_output_whatever_an_environment_prints(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = Coin.begin
    monkeypatch.setattr(Coin, "begin", lambda self: (sys.stdout.write("a coin falls"), begin(self))[1])
    cli.main([command, "acme/Coin", "--env-kwargs", "weight=1", "--seeds", "3", "--json"])
    printed = capsys.readouterr()
    assert json.loads(printed.out)["env"] == "acme/Coin"
    assert "a coin falls" in printed.err


def test_an_environment_of_numbers_fails_the_first_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "CartPole-v1"]) == 1
    assert "has to contain texts, as llmgym.UnicodeText does, got Box" in capsys.readouterr().out


def test_an_audit_with_findings_gives_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", "acme/Coin", "--env-kwargs", "weight=1", "sides=9", "--seeds", "20"]) == 1
    output = capsys.readouterr().out
    assert "hedging: A list of all answers earns 1.00 on average" in output
    assert "seed 0, replies: '" in output
    assert cli.main(["audit", "AIOpsTriage", "--seeds", "5"]) == 0
    assert "No findings." in capsys.readouterr().out


def test_an_audit_can_be_read_by_programs(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["audit", "acme/Coin", "--env-kwargs", "weight=1", "sides=9", "--seeds", "20", "--json"]
    assert cli.main(words) == 1
    result = json.loads(capsys.readouterr().out)
    assert [finding["kind"] for finding in result["findings"]] == ["undeserved", "hedging"]
    rows = {row.pop("probe"): row for row in result["rows"]}
    assert rows["the expert"] == {"episodes": 20, "mean": 1.0, "highest": 1.0, "tops": 20, "success": 1.0}
    assert rows["an empty reply"]["highest"] == 0.0


def test_the_scorers_can_be_read_by_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["scorers", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert cli.main(["scorers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [one["name"] for one in listed] == [line for line in lines if not line.startswith(" ")]
    assert all(f"    {one['description']}" in lines for one in listed if one["description"])


@pytest.mark.parametrize("words", [["envs"], ["scorers", "--json"], ["eval", "--help"], ["grpo", "--help"]])
def test_a_reader_that_has_seen_enough_is_no_traceback(words: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "llmgym", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_a_run_whose_reader_has_left_saves_and_ends_without_a_traceback(tmp_path: Path) -> None:
    options = "--steps 10 --save-every 0 --prompts-per-step 1 --group-size 2 --max-tokens 8 --eval-episodes 0"
    words = [*options.split(), "--output-dir", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "llmgym.agents.grpo", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while "1/10" not in process.stdout.readline():
        assert process.poll() is None
    process.stdout.close()
    assert process.wait(120) == 141
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    assert list(tmp_path.glob("*/checkpoint/state/state.json"))


@pytest.mark.parametrize("words", [["envs"], ["--version"], ["grpo", "--print-config"]], ids=" ".join)
def test_a_command_runs_where_standard_output_is_closed(words: list[str]) -> None:
    command = f"{shlex.join([sys.executable, '-m', 'llmgym', *words])} >&-"
    process = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, timeout=120)
    assert process.returncode == 0
    assert "Traceback" not in process.stderr


def test_a_command_refuses_what_it_does_not_know_with_its_own_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", "--jsn"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: llmgym doctor ")
    assert "unrecognized arguments: --jsn. Did you mean '--json'?" in said


@pytest.mark.parametrize("command", ["check", "audit"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["AIOpsTrige"], "No environment is registered as 'AIOpsTrige'. Did you mean"),
        (["AIOpsTriage", "--env-kwargs", "dificulty=1"], "no argument 'dificulty'. Did you mean 'difficulty'?"),
        (["AIOpsTriage", "--env-kwargs", "difficulty"], "--env-kwargs: expected KEY=VALUE, got 'difficulty'"),
        (["AIOpsTriage", "--env-kwargs", "difficulty=9"], "difficulty has to be one of"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    command: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"llmgym {command}: ")
    assert message in error
    assert error.count("\n") == 1


LONG = "long" * 100
OUTPUT = ["--format", "jsonl", "-o", "out.jsonl"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["view", LONG], f"Expected the name of a file, got {LONG!r:.60}..., which is too long."),
        (["export", LONG, *OUTPUT], "which is too long."),
        (["eval", "--model", LONG, "-n", "1"], "which is too long."),
        (["sft", "--env", "AIOpsTriage", "--data", LONG], "which is too long."),
        (["export", f"run@{'9' * 5000}", *OUTPUT], "'run': expected a step, got a number of 5,000 digits."),
    ],
    ids=lambda value: None,
)
def test_words_that_are_longer_than_any_name_of_a_file_or_step_are_refused(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    assert message in capsys.readouterr().err


def test_a_path_that_may_not_be_used_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def denied(*_: object) -> None:  # whoever runs the tests may be allowed everything
        raise PermissionError(errno.EACCES, "Permission denied", "locked/metrics.jsonl")

    monkeypatch.setattr("llmgym.view.open_runs", denied)
    assert cli.main(["view", "locked"]) == 2
    expected = "llmgym view: Expected a path that may be used, got 'locked/metrics.jsonl': Permission denied.\n"
    assert capsys.readouterr().err == expected


def test_it_hands_an_agents_options_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["grpo", "--print-config", "--steps", "3"]) == 0
    assert "steps: 3" in capsys.readouterr().out


def test_every_algorithm_can_be_imported_from_the_package() -> None:
    assert {getattr(llmgym.agents, name).name for name in llmgym.agents.__all__} == set(agents())


def test_a_file_that_is_called_like_a_module_of_the_standard_library_breaks_no_command(tmp_path: Path) -> None:
    for name in ("asyncio", "logging", "queue", "statistics", "uuid"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('it was imported')\n")
    program = "import sys; from llmgym.cli import main; sys.exit(main(['check', 'Sums']))"
    command = [sys.executable, "-P", "-c", program]  # -P: as in the console script, Python itself adds no directory
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (process.returncode, process.stderr) == (0, "")


def test_a_module_in_the_current_directory_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "import llmgym\n@llmgym.register_env('Here-v0')\nclass Here(llmgym.TextEnv):\n    def begin(self):\n"
    (tmp_path / "here_module.py").write_text(f"{source}        return str(self.np_random.random())\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    try:
        assert cli.main(["check", "here_module:Here"]) == 1
        assert "None of 20 episodes has a score" in capsys.readouterr().out
    finally:
        del gymnasium.registry["Here-v0"]
        llmgym.registry._IDS.remove("Here-v0")

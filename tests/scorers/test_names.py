"""Names of scorers: each is one scorer's, wherever it is registered."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

import llmgym
from llmgym.cli import main
from llmgym.errors import ConfigError
from llmgym.scorers import find_scorer, names, register_scorer, register_scorer_class, resolve_scorer


@pytest.fixture(autouse=True)
def _own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in ("_SCORERS", "_CLASSES", "_ORIGINS"):
        monkeypatch.setattr(names, table, dict(getattr(names, table)))


def mine(episode: llmgym.Episode) -> float:
    return 1.0


def other(episode: llmgym.Episode) -> float:
    return 0.0


def test_a_name_that_another_function_has_is_refused_and_both_are_named() -> None:
    register_scorer("mine-test")(mine)
    with pytest.raises(
        ConfigError, match=r"'mine-test' is taken by .*test_names\.py:mine; .*test_names\.py:other needs"
    ):
        register_scorer("mine-test")(other)
    assert resolve_scorer("mine-test").score([llmgym.Episode()])[0].value == 1.0  # type: ignore[union-attr,index]
    with pytest.raises(ConfigError, match=r"'exact' is taken by llmgym\.scorers\.answers:exact"):
        register_scorer("exact")(mine)
    with pytest.raises(ConfigError, match="'math' is taken by"):
        register_scorer("math")(mine)
    with pytest.raises(ConfigError, match="'math:' is taken by"):
        register_scorer_class("math", "my.module:Math")


def test_a_cell_that_is_run_again_replaces_its_own_scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    cell = "import llmgym\n@llmgym.register_scorer('cell-test')\ndef score(episode):\n    return {}\n"
    for value in (0.25, 0.5):
        exec(cell.format(value), vars(notebook))
    assert resolve_scorer("cell-test").score([llmgym.Episode()])[0].value == 0.5  # type: ignore[union-attr,index]
    with pytest.raises(ConfigError, match="'cell-test' is taken by __main__:score; __main__:better needs"):
        exec(cell.format(1.0).replace("def score", "def better"), vars(notebook))


def test_a_file_that_is_read_as_two_modules_is_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rewards.py"
    file.write_text("import llmgym\n@llmgym.register_scorer('twice-test')\ndef score(episode):\n    return 1.0\n")
    find_scorer(f"{file}:score")
    script = ModuleType("script_test")
    script.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "script_test", script)
    exec(file.read_text(), vars(script))


def test_the_name_of_a_class_is_its_own_too() -> None:
    register_scorer_class("judge-test", "my.module:Judge")
    register_scorer_class("judge-test", "my.module:Judge")
    with pytest.raises(ConfigError, match=r"'judge-test:' is taken by my\.module:Judge; my\.module:Other needs"):
        register_scorer_class("judge-test", "my.module:Other")
    register_scorer("judge-test")(mine)  # beside it, as `number` is beside `number:0.1`


def test_the_command_lists_them_all_with_what_they_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scorers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in ("exact", "number:...", "regex:...", "json_schema:...", "math", "code", "length:...", "repetition"):
        assert lines[lines.index(name) + 1].startswith("    "), name
    assert "reward_model:..." in lines

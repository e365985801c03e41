"""Pages of commands are made, and say what their commands take."""

import re
from pathlib import Path

import pytest

from llmgym import cli
from tools.command_pages import FOLDER, commands, main


def test_the_pages_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_a_page_that_is_missing_changed_or_of_no_command_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("commands", "environments", "algorithms"):
        (tmp_path / folder).mkdir()
    for page in FOLDER.parent.glob("**/*.md"):  # which pages of commands have links to
        if page.parent != FOLDER:
            (tmp_path / page.relative_to(FOLDER.parent)).write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr("tools.command_pages.FOLDER", tmp_path / "commands")
    assert main(["--check"]) == 1
    assert main([]) == 0
    assert main(["--check"]) == 0
    (tmp_path / "commands" / "check.md").write_text("Something else.")
    (tmp_path / "commands" / "gone.md").write_text("A command of old.")
    capsys.readouterr()
    assert main(["--check"]) == 1
    assert re.findall(r"commands/(\w+)\.md: out of date", capsys.readouterr().out) == ["check", "gone"]
    assert main([]) == 0
    assert not (tmp_path / "commands" / "gone.md").exists()


@pytest.mark.parametrize("command", commands(), ids=lambda command: command.name)
def test_a_page_has_the_options_that_help_has(
    command: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = command.name  # type: ignore[attr-defined]
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as left:
        cli.main([name, "--help"])
    assert left.value.code == 0
    flag = re.compile(r"(?<![\w-])--(?!no-)[a-z][a-z-]*[a-z]")
    helped = set(flag.findall(capsys.readouterr().out)) - {"--help"}
    page = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    rows = "\n".join(row for row in page.splitlines() if row.startswith(("| `-", "$ llmgym")))
    assert helped <= set(flag.findall(page))
    assert {one for row in rows.splitlines() for one in flag.findall(row.split(" | ")[0])} <= helped


def test_the_table_says_which_commands_print_json() -> None:
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| \[`llmgym (.+?)`\].* \| (yes|) \| .*\|$", table, re.MULTILINE))
    assert set(rows) == {command.name for command in commands()}
    without = {"init", "view", "serve-env", "train", *cli.agents()}  # they write files, or serve
    assert {name for name, says in rows.items() if says} == set(rows) - without

"""Pages of environments are made, and say what their environments do."""

import re
from pathlib import Path

import pytest
from tiers import long_but

import llmgym
from tools.env_pages import FOLDER, PAGES, main

NAMES = [about.cls.__name__ for about in PAGES]
SLOW = "Code", "TicTacToe"  # half of the time of all pages


@pytest.mark.slow
@pytest.mark.parametrize("name", long_but(NAMES, *(one for one in NAMES if one not in SLOW)))
def test_the_pages_are_up_to_date(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tools.env_pages.PAGES", [one for one in PAGES if one.cls.__name__ == name])
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_a_page_that_is_missing_or_changed_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    about = next(one for one in PAGES if one.cls.__name__ == "Sums")
    monkeypatch.setattr("tools.env_pages.FOLDER", tmp_path)
    monkeypatch.setattr("tools.env_pages.PAGES", [about])
    assert main(["--check"]) == 1
    assert main([]) == 0
    assert main(["--check"]) == 0
    (tmp_path / about.file).write_text("Something else.")
    assert main(["--check"]) == 1
    assert "sums.md: out of date" in capsys.readouterr().out


def test_every_argument_of_an_environment_is_on_its_page() -> None:
    text = (FOLDER / "grid_world.md").read_text(encoding="utf-8")
    assert '`gymnasium.make("llmgym/GridWorld-v0", difficulty=1, kind="any", split="train")`' in text
    for name in ("difficulty", "kind", "split"):
        assert f"- `{name}`: " in text


def test_the_table_has_every_built_in_environment_and_its_page() -> None:
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(llmgym/[^`]+)` .*\]\((\w+\.md)\) \|$", table, re.MULTILINE)
    assert [name for name, _ in rows] == [one for one in llmgym.registered_envs() if one.startswith("llmgym/")]
    assert all((FOLDER / file).exists() for _, file in rows)

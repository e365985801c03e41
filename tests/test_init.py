"""What `llmgym init` writes works at the first try: as it is, and installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmgym.cli import main

ROOT = Path(__file__).parent.parent


def run(words: list[str], folder: Path, path: list[Path]) -> str:
    """Run a module as a user does, with some folders on the path; return what it printed."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, cwd=folder, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def package(tmp_path: Path) -> Path:
    assert main(["init", str(tmp_path / "log_reader")]) == 0
    return tmp_path / "log_reader"


def test_the_folder_of_the_project_does_not_hide_the_package(package: Path) -> None:
    assert sorted(path.name for path in package.iterdir()) == ["README.md", "pyproject.toml", "src", "tests"]
    assert sorted(path.name for path in (package / "src" / "log_reader").iterdir()) == ["__init__.py", "environment.py"]


def test_its_own_test_passes_and_its_code_has_nothing_to_lint(package: Path) -> None:
    assert "6 passed" in run(["pytest", "-q", "-p", "no:cacheprovider"], package, [ROOT])
    run(["ruff", "check", "--no-cache", "."], package, [ROOT])
    run(["ruff", "format", "--no-cache", "--check", "."], package, [ROOT])


@pytest.mark.slow
def test_installed_it_is_found_by_name_and_trains(package: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    run(["pip", "install", "--no-deps", "--no-build-isolation", "--target", str(site), str(package)], tmp_path, [])
    path = [ROOT, site]
    assert "LogReader-v0\n    Find the service with the most errors" in run(["llmgym", "envs"], tmp_path, path)
    assert "all checks passed" in run(
        ["llmgym", "check", "LogReader", "--env-kwargs", "difficulty=3", "--seeds", "5"], tmp_path, path
    )
    assert "No findings." in run(["llmgym", "audit", "LogReader", "--seeds", "20"], tmp_path, path)
    small = [
        "--prompts-per-step",
        "2",
        "--group-size",
        "2",
        "--max-tokens",
        "8",
        "--eval-episodes",
        "2",
        "--steps",
        "1",
    ]
    assert "grpo-LogReader-v0" in run(["llmgym", "grpo", "--env", "LogReader", *small], tmp_path, path)


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("my-env", "my_env"),
        ("2048", "env_2048"),
        ("class", "class_env"),
        ("json", "json_env"),
        ("llmgym", "llmgym_env"),
        ("torch", "torch_env"),
        ("日志", "my_env"),
    ],
)
def test_a_name_that_is_no_packages_is_refused_with_a_suggestion(
    name: str, suggested: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(tmp_path / name)]) == 2
    assert f"{name!r} cannot be the name of a package. How about {suggested!r}?" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_directory_with_something_in_it_is_left_as_it_is(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(package.rglob("*"))
    assert main(["init", str(package)]) == 2
    assert "exists and is not an empty directory" in capsys.readouterr().err
    assert sorted(package.rglob("*")) == before


def test_an_empty_directory_is_filled_and_one_that_cannot_be_made_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_env").mkdir()
    assert main(["init", str(tmp_path / "my_env")]) == 0
    assert (tmp_path / "my_env" / "src" / "my_env" / "environment.py").is_file()
    (tmp_path / "file").write_text("")
    assert main(["init", str(tmp_path / "file" / "my_env")]) == 2
    assert "Cannot write" in capsys.readouterr().err

"""Environments and scorers of installed packages are found by name, and a broken package breaks nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ACME = '''
import llmgym

@llmgym.register_env("Parrot-v0", word="hello")
class Parrot(llmgym.TextEnv):
    """Say a word. Nothing else."""

    def __init__(self, word, times=1, **options):
        super().__init__(**options)
        self.word = word

    def begin(self):
        return f"Say {self.word}."

@llmgym.register_scorer("brief")
def brief(episode):
    """Pay for short replies."""
    return 1.0 / (1 + len(episode.actions[-1]))
'''


def install(site: Path, package: str, source: str, entry: str) -> None:
    """Put a package where `pip install --target` would, with its metadata."""
    metadata = site / f"{package}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / f"{package}.py").write_text(source)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[llmgym.plugins]\n{package} = {entry}\n")


def run(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})


@pytest.fixture
def site(tmp_path: Path) -> Path:
    install(tmp_path, "acme", ACME, "acme")
    return tmp_path


def test_their_environments_are_listed_with_their_arguments(site: Path) -> None:
    lines = run(site, "-m", "llmgym", "envs").stdout.splitlines()
    start = lines.index("Parrot-v0")
    assert lines[start + 1 : start + 3] == ["    Say a word.", "    --env-kwargs word=hello times=1"]


def test_their_scorers_are_listed(site: Path) -> None:
    assert "brief\n    Pay for short replies.\n" in run(site, "-m", "llmgym", "scorers").stdout


def test_their_names_need_no_module(site: Path) -> None:
    found = run(
        site, "-c", "import llmgym; print(llmgym.resolve_env('Parrot'), llmgym.scorers.resolve_scorer('brief'))"
    )
    assert found.stdout.startswith("Parrot-v0 <llmgym.scorers.pointwise.FunctionScorer")
    options = run(site, "-m", "llmgym", "grpo", "--env", "Parrot", "--scorer", "brief", "--env-kwargs", "wrd=1")
    assert "Parrot-v0 has no argument 'wrd'. Did you mean 'word'?" in options.stderr


@pytest.mark.parametrize("source", ["import no_such_thing", "raise SystemExit(3)", "def broken(:"])
def test_one_that_cannot_be_imported_costs_one_warning_that_names_it(site: Path, source: str) -> None:
    install(site, "broken", source, "broken")
    listed = run(site, "-c", "import llmgym; print(llmgym.registered_envs(), llmgym.registered_envs())")
    assert "Parrot-v0" in listed.stdout
    assert listed.stderr.count("UserWarning: The package broken has a plugin for llmgym, broken, that cannot be") == 1
    assert listed.returncode == 0


def test_importing_llmgym_imports_no_plugin(site: Path) -> None:
    program = "import sys, llmgym; llmgym.resolve_env('llmgym/AIOpsTriage-v0'); print('acme' in sys.modules)"
    assert run(site, "-c", program).stdout == "False\n"

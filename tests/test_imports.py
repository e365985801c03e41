"""The architecture, as the imports tell it: arrows point one way, and text needs no torch."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmgym.cli import agents

PACKAGE = Path(__file__).parent.parent / "llmgym"

# Worlds from the bottom up: a module may import from its own world and those before it.
LAYERS = [
    {"llmgym.version", "llmgym.errors", "llmgym.types", "llmgym.spaces", "llmgym.files", "llmgym.config"},
    {"llmgym.scorers", "llmgym.envs"},
    {"llmgym.registry", "llmgym"},
    {"llmgym.models"},
    {"llmgym.engines"},
    {"llmgym.rollout"},
    {"llmgym.data"},
    {"llmgym.learn"},
    {"llmgym.evaluate"},
    {"llmgym.report"},
    {"llmgym.train"},
    {"llmgym.agents"},
    {"llmgym.cli", "llmgym.__main__"},
]
EXCEPTIONS = {
    "llmgym.models.tiny": ("llmgym.rollout",),  # the recipe of the bundled model encodes chats
    "llmgym.models.compat": ("llmgym.engines", "llmgym.rollout", "llmgym.learn"),  # tries what stands on models
}


def modules() -> list[tuple[str, Path]]:
    return [
        (".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"), path)
        for path in sorted(PACKAGE.rglob("*.py"))
    ]


def layer_of(module: str) -> int:
    for depth, names in enumerate(LAYERS):
        if any(module == name or (name != "llmgym" and module.startswith(f"{name}.")) for name in names):
            return depth
    raise AssertionError(f"{module} belongs to no layer: name it in LAYERS")


def imports_of(path: Path) -> set[str]:
    """Every llmgym module that a file imports, also inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return {name for name in found if name.split(".")[0] == "llmgym"}


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_no_arrow_runs_back_up(module: str, path: Path) -> None:
    for imported in imports_of(path):
        if imported.startswith(EXCEPTIONS.get(module, "-")):
            continue
        assert layer_of(imported) <= layer_of(module), f"{module} imports {imported}"


def test_what_supervises_servers_knows_none_of_them() -> None:
    for path in (PACKAGE / "engines" / "served").glob("*.py"):
        assert "sglang" not in path.read_text(encoding="utf-8").lower(), f"{path}: that belongs into a dialect"


def loaded_by(statement: str) -> set[str]:
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    return set(output.splitlines()[-1].split())


@pytest.mark.parametrize(
    "statement",
    [
        "import llmgym",
        "import llmgym, gymnasium; gymnasium.make('llmgym/AIOpsTriage-v0').reset(seed=0)",
        "import llmgym.scorers, llmgym.data, llmgym.data.trajectories, llmgym.data.preferences",
        f"import {', '.join(f'llmgym.agents.{name}' for name in agents())}",
        "import llmgym.models.teacher",
    ],
)
def test_text_and_command_lines_load_no_torch(statement: str) -> None:
    assert not {"torch", "transformers", "tensordict", "torchrl"} & loaded_by(statement)


@pytest.mark.parametrize("command", ["llmgym.agents.grpo", "llmgym.data.preferences", "llmgym.cli"])
def test_help_is_there_where_torch_cannot_be_imported(command: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('not needed for --help')")
    run = subprocess.run(
        [sys.executable, "-m", command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert "usage:" in run.stdout

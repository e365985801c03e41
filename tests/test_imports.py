"""The architecture, as the imports tell it: arrows point one way, and text needs no torch."""

import ast
import os
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from llmgym.cli import agents, script

PACKAGE = Path(__file__).parent.parent / "llmgym"

# Floors from the bottom up: a file imports from its own floor and those below it. No file is excepted.
LAYERS = [
    {
        *("llmgym.version", "llmgym.visible", "llmgym.errors", "llmgym.calls", "llmgym.types", "llmgym.spaces"),
        *("llmgym.secrets", "llmgym.directories"),
    },
    {"llmgym.addresses", "llmgym.files", "llmgym.plugins", "llmgym.config", "llmgym.workers"},
    {
        "llmgym.data.strict_json",
        "llmgym.data.parquet",
        "llmgym.data.tables",
        "llmgym.data.conversations",
        "llmgym.data.tasks",
        "llmgym.data.order",
    },
    {"llmgym.scorers", "llmgym.envs"},
    {"llmgym.entry_points", "llmgym.registry", "llmgym"},
    {"llmgym.audit"},
    {"llmgym.models"},
    {"llmgym.engines"},
    {"llmgym.rollout"},
    {"llmgym.data"},
    {"llmgym.learn"},
    {"llmgym.evaluate", "llmgym.statistics", "llmgym.paired"},
    {"llmgym.report"},
    {"llmgym.train"},
    {"llmgym.agents", "llmgym.evals", "llmgym.doctor", "llmgym.view"},
    {"llmgym.demo", "llmgym.compat"},
    {"llmgym.cli", "llmgym.__main__"},
]
INNER_IMPORTS = 12
"""Imports inside functions that the package may have, each with its reason beside it."""


def files() -> dict[str, list[Path]]:
    """Return the files of every module: its source and, if its parts are loaded late, the stub next to it."""
    found: dict[str, list[Path]] = {}
    for path in sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")]):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        found.setdefault(module, []).append(path)
    return found


FILES = files()


def layer_of(module: str) -> int:
    for depth, names in enumerate(LAYERS):
        if any(module == name or (name != "llmgym" and module.startswith(f"{name}.")) for name in names):
            return depth
    raise AssertionError(f"{module} belongs to no floor: name it in LAYERS")


def imports_of(module: str) -> set[str]:
    """Return every module of llmgym that one imports: at its top, inside functions, and for typing only."""
    found = set()
    for path in FILES[module]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == (path.suffix == ".pyi"), f"{path}: {ast.unparse(node)}"
                origin = f"{module}.{node.module}" if node.level else str(node.module)
                found |= {inner if (inner := f"{origin}.{alias.name}") in FILES else origin for alias in node.names}
    return (found & FILES.keys()) - {module}


@pytest.mark.parametrize("module", FILES)
def test_no_arrow_runs_back_up(module: str) -> None:
    for imported in imports_of(module):
        assert layer_of(imported) <= layer_of(module), f"{module} imports {imported}"


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {module: imports_of(module) for module in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_imports_inside_functions_are_few_and_say_why() -> None:
    found = {}
    for path in (path for paths in FILES.values() for path in paths):
        text = path.read_text(encoding="utf-8")
        for function in ast.walk(ast.parse(text)):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Import | ast.ImportFrom):
                        found[path, node.lineno] = text.splitlines()[node.lineno - 1]
    assert len(found) <= INNER_IMPORTS, found
    assert all("  # " in line for line in found.values()), found


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
        "import llmgym.demo.teacher",
        "from llmgym.view import open_runs, serve, write_report",
    ],
)
def test_text_and_command_lines_load_no_torch(statement: str) -> None:
    assert not {"torch", "transformers", "tensordict", "torchrl"} & loaded_by(statement)


def test_importing_llmgym_loads_neither_configurations_nor_what_reads_command_lines() -> None:
    assert not {"pydantic", "tyro", "rich", "pyarrow"} & loaded_by("import llmgym")


def test_what_type_checkers_see_in_llmgym_is_there_once_it_is_imported() -> None:
    names = ("calls.ActionLike", "scorers.Weighted", "spaces.UnicodeText", "types.Turn")
    assert "llmgym.scorers.composition" in loaded_by(f"import llmgym; {', '.join(f'llmgym.{name}' for name in names)}")


@pytest.mark.parametrize("command", script.COMMANDS)
def test_a_command_imports_no_other_command(command: str) -> None:
    loaded = loaded_by(f"from llmgym.cli import main\ntry: main(['{command}', '--help'])\nexcept SystemExit: pass")
    own = command.replace("-", "_")
    commands = {f"llmgym.cli.{name.replace('-', '_')}" for name in (*script.COMMANDS, "evaluate", "train")}
    assert commands & loaded == {f"llmgym.cli.{own}"}


COMMANDS = [f"llmgym {command}" for command in script.COMMANDS]


@pytest.mark.parametrize(
    "command", ["llmgym.agents.grpo", "llmgym.data.preferences", "llmgym.cli", "llmgym eval", *COMMANDS]
)
def test_help_works_where_torch_cannot_be_imported(command: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('not needed for --help')")
    run = subprocess.run(
        [sys.executable, "-m", *command.split(), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert "usage:" in run.stdout


def test_help_of_every_algorithm_loads_no_torch() -> None:
    words = [[name, "--help"] for name in (*agents(), "train")]
    statement = f"from llmgym.cli import main\nfor words in {words}:\n  try: main(words)\n  except SystemExit: pass"
    loaded = loaded_by(statement)
    assert {f"llmgym.agents.{name}" for name in agents()} <= loaded
    assert not {"torch", "transformers", "tensordict", "torchrl"} & loaded

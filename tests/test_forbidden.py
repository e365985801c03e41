"""Nothing in the package runs code that a file or a reply brings."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "llmgym"
FILES = sorted(PACKAGE.rglob("*.py"))
RUNS_CODE = {"envs/code/child.py"}  # an agent's code, in a process of its own that has given everything up
BUILT_IN = {"eval", "exec", "__import__"}
MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
LOADS = "models/pretrained.py"  # the one file that has transformers read a model directory, without its code
LOADERS = {"from_pretrained", "from_config", "apply_chat_template", "load_adapter"}
CALLS = {
    "torch.load",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "numpy.load",
    "np.load",
}


def forbidden(file: Path) -> Iterator[str]:
    """Yield what a file does that no file may do."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (f"imports {one.name}" for one in node.names if one.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{one.name}" for one in node.names}
            yield from (f"imports from {node.module}" for _ in names if str(node.module).partition(".")[0] in MODULES)
            yield from (f"imports {name}" for name in names & CALLS)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in BUILT_IN | CALLS:
                yield f"calls {called}"
            for keyword in node.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if (keyword.arg, value) in {("shell", True), ("trust_remote_code", True), ("allow_pickle", True)}:
                    yield f"calls {called} with {keyword.arg}=True"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_file_runs_what_it_reads(file: Path) -> None:
    found = list(forbidden(file))
    if str(file.relative_to(PACKAGE)) in RUNS_CODE:
        assert found, "it is an exception no longer"
        return
    assert not found


def loaders(file: Path) -> Iterator[tuple[str, bool]]:
    """Yield what a file calls by a name of `LOADERS`, and whether it says that no code is to be run."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in LOADERS:
            yield ast.unparse(node), False
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOADERS:
            said = [keyword.value for keyword in node.keywords if keyword.arg == "trust_remote_code"]
            yield ast.unparse(node.func), any(isinstance(v, ast.Constant) and v.value is False for v in said)


def test_every_model_comes_in_by_one_door_which_lets_no_code_in() -> None:
    found = {str(file.relative_to(PACKAGE)): list(loaders(file)) for file in FILES}
    calls = {name: sum(said for _, said in of) for name, of in found.items() if of}
    assert calls.keys() == {LOADS, "compat.py"}  # which makes models of configurations of its own
    mentioned = [name for name, said in found[LOADS] if not said]
    assert len(mentioned) == calls[LOADS] > 0  # each mention is a call that says so
    assert {name.rpartition(".")[2] for name, _ in found["compat.py"]} == {"from_config"}


def test_the_walk_finds_what_is_forbidden(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    lines = ["import pickle", "from torch import load", "eval('1')", "torch.load('x')", "run('ls', shell=True)"]
    file.write_text("\n".join(lines))
    assert len(list(forbidden(file))) == len(lines)

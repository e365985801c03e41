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


def test_the_walk_finds_what_is_forbidden(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    lines = ["import pickle", "from torch import load", "eval('1')", "torch.load('x')", "run('ls', shell=True)"]
    file.write_text("\n".join(lines))
    assert len(list(forbidden(file))) == len(lines)

"""What a process that was killed left in the temporary directory is removed by the next, and nothing else."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory

from llmgym.directories import OwnDirectory
from llmgym.engines.served.log import ServerLog
from llmgym.spaces import UnicodeText

Made = tuple[Path, object]  # a directory, and what it is there for

KILLED = """
import os, signal, sys
from test_directories import MAKERS
path, _ = made = MAKERS[sys.argv[1]]()
print(path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def weights() -> Made:
    directory = OwnDirectory("llmgym-weights-")
    return directory.path, directory


def log() -> Made:
    log = ServerLog(open(os.devnull, "rb"), "key", "SGLang")  # noqa: SIM115 - the log closes it
    return log.path.parent, log


def texts() -> Made:
    """Make what `AsyncVectorEnv` shares with its processes."""
    folder = create_shared_memory(UnicodeText(), n=2)
    return Path(str(folder)), read_from_shared_memory(UnicodeText(), folder, n=2)  # type: ignore[arg-type]


MAKERS: dict[str, Callable[[], Made]] = {"weights": weights, "log": log, "texts": texts}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty temporary directory."""
    (root := tmp_path / "root").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(root))
    return root


def left_in(root: Path, maker: str = "weights") -> Path:
    """Return a directory whose process was killed."""
    environment = {
        **os.environ,
        "TMPDIR": str(root),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    command = [sys.executable, "-c", KILLED, maker]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    path = Path(process.stdout.strip())
    (path / "1").mkdir()
    (path / "1" / "content").write_bytes(b"content")
    return path


@pytest.mark.parametrize("maker", MAKERS)
def test_what_a_process_that_was_killed_left_is_removed_and_what_another_uses_is_not(maker: str, root: Path) -> None:
    left = left_in(root, maker)
    assert left.parent == root
    used, user = MAKERS[maker]()
    assert not left.exists()
    newest, its_user = MAKERS[maker]()
    assert {used, newest} <= set(root.iterdir())
    assert user is not its_user


def test_what_was_not_made_so_is_left_alone(root: Path) -> None:
    (strange := root / "llmgym-weights-strange").mkdir()  # of nobody knows whom
    (strange / "content").write_bytes(b"content")
    first, other = OwnDirectory("llmgym-weights-"), OwnDirectory("llmgym-log-")
    last = OwnDirectory("llmgym-weights-")
    assert {strange, first.path, other.path, last.path} == set(root.iterdir())
    for one in (first, other, last):
        one.remove()
    assert list(root.iterdir()) == [strange]


def test_what_is_kept_is_removed_by_nobody(root: Path) -> None:
    directory = OwnDirectory("llmgym-log-")
    directory.keep()
    OwnDirectory("llmgym-log-").remove()
    assert list(root.iterdir()) == [directory.path]
    assert list(directory.path.iterdir()) == []


def test_no_link_is_followed_to_what_is_removed(root: Path, tmp_path: Path) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    left = left_in(elsewhere)
    (root / "llmgym-weights-link").symlink_to(left)
    (hidden := root / "llmgym-weights-hidden").mkdir()
    (hidden / "owner").symlink_to(left / "owner")
    (root / "llmgym-weights-file").touch()
    OwnDirectory("llmgym-weights-").remove()
    assert (left / "1" / "content").exists()
    assert len(list(root.iterdir())) == 3


def test_what_another_machine_left_is_left_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = left_in(root)
    monkeypatch.setattr("platform.node", lambda: "another")
    OwnDirectory("llmgym-weights-").remove()
    assert left.exists()

"""Keys that no service knows, in the environment of every test; a session that writes one of them to a file fails."""

import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

CANARY = "5ec2e7" + "c0ffee5ec2e7c0ffee5ec2e7c0ffee5ec2"  # in two parts, or this file would have it
NAMES = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY")

_FOUND = pytest.StashKey[list[Path]]()

os.environ.update(dict.fromkeys(NAMES, CANARY))


def files_with(secret: str, directory: Path) -> Iterator[Path]:
    """Yield the files below a directory whose bytes have a secret, or what is compressed in them."""
    for path in directory.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        try:
            if path.stat().st_size:
                with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    if content.find(secret.encode()) >= 0 or secret.encode() in _uncompressed(path):
                        yield path
        except OSError:  # it vanished, or may not be read
            continue


def _uncompressed(path: Path) -> bytes:
    """Return the values of a Parquet file one after another; nothing of another file, or of a broken one."""
    if path.suffix != ".parquet":
        return b""
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return b""
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue().to_pybytes()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Look through all that the tests wrote, and what the package left where temporary files are."""
    if hasattr(session.config, "workerinput"):  # the process that started this one looks
        return
    written = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]  # where all `tmp_path` are
    left = Path(tempfile.gettempdir()).glob("llmgym-*")
    session.config.stash[_FOUND] = found = [path for place in (written, *left) for path in files_with(CANARY, place)]
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the files that have a key."""
    for path in config.stash.get(_FOUND, []):
        terminalreporter.write_line(f"A key from the environment was written to {path}", red=True)

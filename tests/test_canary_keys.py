"""A session whose tests write a key from the environment to a file fails, and names the file."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmgym.engines.make import KEY_VARIABLE
from tests.canary_keys import NAMES, files_with

_TEST = """
import os

def test_it(tmp_path):
    (tmp_path / "log.bin").write_bytes(b"\\0key: " + {what}.encode())
    (tmp_path / "empty").touch()
    (tmp_path / "gone").symlink_to("nowhere")
"""


@pytest.mark.parametrize(("what", "code"), [("os.environ['OPENAI_API_KEY']", 1), ("'another'", 0)])
@pytest.mark.parametrize("processes", [[], ["-n", "1"]])
def test_a_key_in_a_file_is_found(what: str, code: int, processes: list[str], tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(_TEST.replace("{what}", what))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "canary_keys", f"--basetemp={tmp_path / 'written'}"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    run = subprocess.run(
        [*command, *processes, "test_one.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == code, run.stdout + run.stderr
    assert ("A key from the environment was written to" in run.stdout) == bool(code)
    assert "1 passed" in run.stdout
    for file in tmp_path.rglob("log.bin"):
        file.unlink()  # or this session would find it too


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_key_is_found_in_the_rows_of_parquet_and_one_that_is_broken_is_no_error(
    compression: str, tmp_path: Path
) -> None:
    secret = "s3cret-of-nobody"
    texts = [f"row {i} says {secret if i == 70 else i}" for i in range(100)]
    table = pa.table({"plain": ["x"] * 100, "nested": [[{"content": text}] for text in texts]})
    pq.write_table(table, tmp_path / "with.parquet", compression=compression)
    pq.write_table(table.slice(80), tmp_path / "without.parquet", compression=compression)
    whole = (tmp_path / "with.parquet").read_bytes()
    assert (secret.encode() in whole) == (compression == "none")
    (tmp_path / "torn.parquet").write_bytes(whole.replace(secret.encode(), b"")[:-100])
    (tmp_path / "none.parquet").write_bytes(b"PAR1")
    assert list(files_with(secret, tmp_path)) == [tmp_path / "with.parquet"]


def test_the_key_of_servers_is_among_those_that_are_looked_for() -> None:
    assert KEY_VARIABLE in NAMES
    assert len({os.environ[name] for name in NAMES}) == 1

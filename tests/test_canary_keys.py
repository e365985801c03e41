"""A session whose tests write a key from the environment to a file fails, and names the file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_TEST = """
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

def test_it(tmp_path):
    place = {place}
    {write}
    (place / "empty").touch()
    (place / "gone").symlink_to("nowhere")
"""
RAW = '(place / "log.bin").write_bytes(b"key: " + {what}.encode())'
COMPRESSED = """table = pa.table({"said": ["key: " + {what}] * 99})
    pq.write_table(table, place / "log.parquet", compression="zstd", write_statistics=False)
    assert b"c0ffee5ec2e7c0ffee" not in (place / "log.parquet").read_bytes()"""
PLACES = ["tmp_path", "Path(tempfile.mkdtemp(prefix='llmgym-'))"]


@pytest.mark.parametrize(("what", "code"), [("os.environ['OPENAI_API_KEY']", 1), ("'another'", 0)])
@pytest.mark.parametrize(
    ("place", "write", "processes"),
    [
        (PLACES[0], RAW, []),
        (PLACES[0], RAW, ["-p", "xdist", "-n", "1"]),
        (PLACES[1], RAW, []),
        (PLACES[0], COMPRESSED, []),
    ],
)
def test_a_key_in_a_file_is_found(
    what: str, code: int, place: str, write: str, processes: list[str], tmp_path: Path
) -> None:
    test = _TEST.replace("{write}", write).replace("{what}", what).replace("{place}", place)
    (tmp_path / "test_one.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "canary_keys", f"--basetemp={tmp_path / 'written'}"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent),
        "TMPDIR": str(tmp_path),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # plugins start slowly
    }
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
    for file in tmp_path.rglob("log.*"):
        file.unlink()  # or this session would find it too

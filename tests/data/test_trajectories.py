"""Trajectory files hold what was played, whole or not at all."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from llmgym.data import trajectories as module
from llmgym.data.trajectories import read_trajectories, write_trajectories
from llmgym.rollout.trajectory import Reply, Trajectory
from llmgym.types import Message


def some() -> list[Trajectory]:
    return [
        Trajectory(
            seed=2**40,
            group=1,
            tokens=[1, 2, 3],
            mask=[False, True, True],
            log_probs=[0.0, -0.5, -0.25],
            replies=[Reply(1, 3, "stop", 4, 0.5)],
            messages=[Message("user", "日志\n"), Message("assistant", "é")],
            parts={"json_ok": 1.0},
            score=0.5,
            ending="terminated",
        ),
        Trajectory(seed=0, group=1, tokens=[1], mask=[False], log_probs=[0.0], ending="context"),
    ]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "step.parquet"
    write_trajectories(path, some())
    assert read_trajectories(path) == some()
    assert b"trajectories" in pq.read_schema(path).metadata[b"llmgym"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "step.parquet"
    write_trajectories(path, some())
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(OSError, match="CRC"):
        read_trajectories(path)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "step.parquet"
    write_trajectories(path, some())
    before = path.read_bytes()

    def fail(table: object, where: Path, **options: object) -> None:
        where.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(module.pq, "write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        write_trajectories(path, some())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_lone_surrogate_is_replaced(tmp_path: Path) -> None:
    (trajectory,) = some()[:1]
    trajectory.messages = [Message("user", "\ud800x")]
    write_trajectories(tmp_path / "step.parquet", [trajectory])
    assert read_trajectories(tmp_path / "step.parquet")[0].messages == [Message("user", "?x")]

"""Trajectory files hold what was played, whole or not at all."""

import dataclasses
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmgym.data import trajectories as module
from llmgym.data.trajectories import read_shard, read_trajectories, write_trajectories
from llmgym.errors import DataError
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
            messages=[Message("user", "日志\n"), Message("tool", "ok", "log", "c0"), Message("assistant", "é")],
            parts={"json_ok": 1.0},
            score=0.5,
            score_kind="win_rate",
            ending="terminated",
        ),
        Trajectory(seed=0, group=1, tokens=[1], mask=[False], log_probs=[0.0], score_error="no room", ending="context"),
        Trajectory(seed=0, group=2, tokens=[1, 2], mask=[False] * 2, log_probs=[0.0] * 2, row_starts=[0, 1]),
    ]


def test_messages_of_version_4_have_a_role_and_a_content(tmp_path: Path) -> None:
    path = tmp_path / "step.parquet"
    write_trajectories(path, some()[:1])
    table = pq.read_table(path)
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    messages = pa.array([[{"role": "user", "content": "x"}]], kind)
    table = table.set_column(table.column_names.index("messages"), "messages", messages)
    old = {"llmgym": b'{"kind": "trajectories", "version": 4}'}
    pq.write_table(table.replace_schema_metadata(old), path, write_page_checksum=True)
    assert read_trajectories(path)[0].messages == [Message("user", "x")]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "step.parquet"
    write_trajectories(path, some())
    assert read_trajectories(path) == some()
    assert b"trajectories" in pq.read_schema(path).metadata[b"llmgym"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("version", "lacks"),
    [(1, ["row_starts", "score_error", "score_kind", "seat"]), (3, ["score_kind", "seat"]), (5, ["seat"])],
)
def test_a_file_of_an_earlier_version_is_read(tmp_path: Path, version: int, lacks: list[str]) -> None:
    path = tmp_path / "step.parquet"
    write_trajectories(path, some()[:2])
    table = pq.read_table(path).drop_columns(lacks)
    old = {"llmgym": b'{"kind": "trajectories", "version": %d}' % version}
    pq.write_table(table.replace_schema_metadata(old), path, write_page_checksum=True)
    expected = some()[:2]
    if "score_error" in lacks:
        expected[1].score_error = None
    if "score_kind" in lacks:
        expected[0].score_kind = "reward"
    assert read_trajectories(path) == expected


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (
            {"llmgym": b'{"kind": "trajectories", "version": 99}'},
            "version 9 or earlier, got trajectories of version 99",
        ),
        ({"llmgym": b'{"kind": "tasks", "version": 1}'}, "expected trajectories .* got tasks of version 1"),
        ({}, "got something else of version unknown"),
    ],
)
def test_a_file_of_another_kind_or_a_later_version_is_refused(
    tmp_path: Path, metadata: dict[str, bytes], message: str
) -> None:
    pq.write_table(pa.table({"seed": [1]}).replace_schema_metadata(metadata), tmp_path / "x", write_page_checksum=True)
    with pytest.raises(DataError, match=message):
        read_trajectories(tmp_path / "x")


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "step.parquet"
    write_trajectories(path, some())
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        read_trajectories(path)


def test_single_rows_are_those_of_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "step.parquet"
    write_trajectories(path, [dataclasses.replace(some()[0], seed=seed) for seed in range(700)])
    assert pq.ParquetFile(path).num_row_groups > 1
    whole = read_shard(path).to_pylist()
    for rows in ([3], [699, 0, 300, 255, 256, 0], []):
        assert read_shard(path, rows=rows).to_pylist() == [whole[row] for row in rows]
    assert read_shard(path, ["seed", "unheard of"], [511]).to_pylist() == [{"seed": 511}]
    with pytest.raises(DataError, match="expected row 700 of a file of trajectories, got one of 700 rows"):
        read_shard(path, rows=[700])


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

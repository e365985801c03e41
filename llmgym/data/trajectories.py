"""Trajectories as Parquet: a file per training step, a row per episode."""

import bisect
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llmgym.data.conversations import CONVERSATION, as_rows, message_in
from llmgym.errors import DataError
from llmgym.files import whole_or_absent
from llmgym.rollout.trajectory import Reply, Trajectory

SCHEMA_VERSION = 8
"""Version 2 added ``row_starts``; an episode of version 1 is one row. Version 3 added ``score_error``, version 4
``score_kind``, version 5 what messages of tools have besides, version 6 ``data_row`` and ``seat``, version 7
the ``versions`` of replies, version 8 what a server ``read`` and ``written`` for them where there are no tokens."""

_REPLY = pa.struct(
    [
        ("start", pa.int32()),
        ("stop", pa.int32()),
        ("finish_reason", pa.string()),
        ("weight_version", pa.int32()),
        ("reward", pa.float64()),
        ("versions", pa.list_(pa.int32())),
        ("read", pa.int64()),
        ("written", pa.int64()),
    ]
)
SCHEMA = pa.schema(
    [
        ("seed", pa.int64()),
        ("group", pa.int64()),
        ("score", pa.float64()),
        ("score_error", pa.string()),
        ("score_kind", pa.string()),
        ("ending", pa.string()),
        ("parts", pa.map_(pa.string(), pa.float64())),
        ("messages", CONVERSATION),
        ("replies", pa.list_(_REPLY)),
        ("tokens", pa.list_(pa.int32())),
        ("mask", pa.list_(pa.bool_())),
        ("log_probs", pa.list_(pa.float32())),
        ("row_starts", pa.list_(pa.int32())),
        ("data_row", pa.int64()),
        ("seat", pa.int32()),
    ],
    metadata={"llmgym": json.dumps({"kind": "trajectories", "version": SCHEMA_VERSION})},
)
"""One episode: see `llmgym.rollout.trajectory.Trajectory`. A missing score is null."""


_TOGETHER = 256  # episodes that are compressed, and later read, together


def write_trajectories(path: Path, trajectories: Sequence[Trajectory]) -> None:
    """Write trajectories to a Parquet file, with page checksums; it is whole or absent."""
    rows = [
        {
            "seed": trajectory.seed,
            "group": trajectory.group,
            "score": trajectory.score,
            "score_error": trajectory.score_error,
            "score_kind": trajectory.score_kind,
            "ending": trajectory.ending,
            "parts": list(trajectory.parts.items()),
            "messages": as_rows(trajectory.messages),
            "replies": [
                {
                    "start": reply.start,
                    "stop": reply.stop,
                    "finish_reason": reply.finish_reason,
                    "weight_version": reply.weight_version,
                    "reward": reply.reward,
                    "versions": reply.versions,
                    "read": reply.read,
                    "written": reply.written,
                }
                for reply in trajectory.replies
            ],
            "tokens": trajectory.tokens,
            "mask": trajectory.mask,
            "log_probs": trajectory.log_probs,
            "row_starts": trajectory.row_starts,
            "data_row": trajectory.data_row,
            "seat": trajectory.seat,
        }
        for trajectory in trajectories
    ]
    with whole_or_absent(path) as temporary:
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        pq.write_table(table, temporary, row_group_size=_TOGETHER, compression="zstd", write_page_checksum=True)


def read_trajectories(path: Path) -> list[Trajectory]:
    """Read what `write_trajectories` wrote, in this version or an earlier one; page checksums are verified.

    Raises:
        DataError: The file does not hold trajectories, or a later llmgym wrote it.
    """
    return [trajectory_in(row) for row in read_shard(path).to_pylist()]


def read_shard(path: Path, columns: Sequence[str] | None = None, rows: Sequence[int] | None = None) -> pa.Table:
    """Read a file of trajectories as a table, a row per episode; page checksums are verified.

    Args:
        path: The file.
        columns: Of which only those are read that an older file has, too; None for all.
        rows: Which rows, in their order; None for all. No more of the file is read than what was written together.

    Raises:
        DataError: The file does not hold trajectories, or a later llmgym wrote it.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_version(path, file.schema_arrow.metadata or {})
            there = file.schema_arrow.names
            wanted = None if columns is None else [name for name in columns if name in there]
            return file.read(wanted) if rows is None else _rows(file, wanted, rows)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{str(path)!r}: expected a file of trajectories, got one that cannot be read ({error})."
        ) from None


def _rows(file: pq.ParquetFile, columns: Sequence[str] | None, rows: Sequence[int]) -> pa.Table:
    """Return rows of a file.

    Raises:
        DataError: It has fewer.
    """
    counts = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    ends = list(itertools.accumulate(counts))
    if rows and max(rows) >= sum(counts):
        raise DataError(f"expected row {max(rows)} of a file of trajectories, got one of {sum(counts)} rows.")
    groups = sorted({bisect.bisect_right(ends, row) for row in rows})
    places = [row for group in groups for row in range(ends[group] - counts[group], ends[group])]
    taken = pa.array([bisect.bisect_left(places, row) for row in rows], pa.int64())
    return file.read_row_groups(groups, columns).take(taken)


def trajectory_in(row: Mapping[str, Any]) -> Trajectory:
    """Return the trajectory that a row of a file holds, of this version or an earlier one."""
    return Trajectory(
        seed=row["seed"],
        group=row["group"],
        tokens=row["tokens"],
        mask=row["mask"],
        log_probs=row["log_probs"],
        replies=[Reply(**{**reply, "versions": tuple(reply.get("versions", ()))}) for reply in row["replies"]],
        messages=[message_in(message) for message in row["messages"]],
        parts=dict(row["parts"]),
        score=row["score"],
        score_error=row.get("score_error"),
        score_kind=row.get("score_kind", "reward"),
        ending=row["ending"],
        row_starts=row.get("row_starts", [0]),
        data_row=row.get("data_row"),
        seat=row.get("seat", 0),
    )


def _check_version(path: Path, metadata: dict[bytes, bytes]) -> None:
    try:
        label = json.loads(metadata.get(b"llmgym", b"{}"))
    except ValueError:
        label = {}
    if not isinstance(label, dict) or not isinstance(label.get("version", 0), int):
        label = {}
    if label.get("kind") != "trajectories" or label.get("version", 0) > SCHEMA_VERSION:
        raise DataError(
            f"{str(path)!r}: expected trajectories of version {SCHEMA_VERSION} or earlier, "
            f"got {label.get('kind', 'something else')} of version {label.get('version', 'unknown')}."
        )

"""Trajectories as Parquet: a file per training step, a row per episode."""

import bisect
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llmgym.data.conversations import CONVERSATION, as_rows, message_in, read_rows, reading
from llmgym.data.parquet import open_parquet, require_kind
from llmgym.data.tables import ArrowTable
from llmgym.errors import DataError, EnvironmentContractError
from llmgym.files import whole_or_absent
from llmgym.rollout.trajectory import LEARNT, Reply, Trajectory
from llmgym.types import ScoreKind

SCHEMA_VERSION = 9
"""Version 2 added ``row_starts``; an episode of version 1 is one row. Version 3 added ``score_error``, version 4
``score_kind``, version 5 what messages of tools have besides, version 6 ``data_row`` and ``seat``, version 7
the ``versions`` of replies, version 8 what a server ``read`` and ``written`` for them where there are no tokens,
version 9 what was ``LEARNT``."""

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
        *((name, pa.list_(pa.float32())) for name in LEARNT),
    ],
    metadata={"llmgym": json.dumps({"kind": "trajectories", "version": SCHEMA_VERSION})},
)
"""One episode: see `llmgym.rollout.trajectory.Trajectory`. A missing score is null."""


_LATER = ("row_starts", "score_error", "score_kind", "data_row", "seat", *LEARNT)  # columns that version 1 lacks
_NUMBERS = ("seed", "group", "data_row", "seat")
_MAY_BE_NULL = ("score", "score_error", "ending", "data_row")
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
            **{name: trajectory.learnt.get(name, ()) for name in LEARNT},
        }
        for trajectory in trajectories
    ]
    with whole_or_absent(path) as temporary:
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        pq.write_table(table, temporary, row_group_size=_TOGETHER, compression="zstd", write_page_checksum=True)


def read_trajectories(path: Path) -> list[Trajectory]:
    """Read what `write_trajectories` wrote, in this version or an earlier one; page checksums are verified.

    Raises:
        DataError: The file does not hold trajectories, or a later llmgym wrote it. The message names column and row.
    """
    table = ArrowTable(read_shard(path))
    with reading(path):
        return read_rows(table, trajectory_in)


def read_shard(path: Path, columns: Sequence[str] | None = None, rows: Sequence[int] | None = None) -> pa.Table:
    """Read a file of trajectories as a table, a row per episode; page checksums are verified.

    Args:
        path: The file.
        columns: Of which only those are read that an older file has, too; None for all.
        rows: Which rows, in their order; None for all. No more of the file is read than what was written together.

    Raises:
        DataError: The file does not hold trajectories, or a later llmgym wrote it.
    """
    with open_parquet(path, "a file of trajectories") as (file, label):
        require_kind(label, path, "trajectories", SCHEMA_VERSION)
        with reading(path):
            _check_columns(file.schema_arrow)
        there = file.schema_arrow.names
        wanted = None if columns is None else [name for name in columns if name in there]
        return file.read(wanted) if rows is None else _rows(file, wanted, rows)


def _check_columns(schema: pa.Schema) -> None:
    """Check the names and types of columns.

    Raises:
        DataError: One is missing, is there twice, or is of another type.
    """
    for wanted in SCHEMA:
        count = schema.names.count(wanted.name)
        if not count and wanted.name in _LATER:
            continue
        if count != 1:
            raise DataError(f"expected one column {wanted.name!r} of trajectories, got {count or 'none'}.")
        kind = schema.field(wanted.name).type
        if not _fits(kind, wanted.type):
            raise DataError(f"Column {wanted.name!r}: expected {wanted.type!s:.80}, got {kind!s:.80}.")


def _fits(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """Tell whether values of a type are those of another, be they of another width, or structs of an older version."""
    types = pa.types
    if types.is_struct(wanted):
        names = [field.name for field in wanted]
        return types.is_struct(kind) and all(
            field.name in names and _fits(field.type, wanted.field(field.name).type) for field in kind
        )
    if types.is_list(wanted):
        return (types.is_list(kind) or types.is_large_list(kind)) and _fits(kind.value_type, wanted.value_type)
    if types.is_map(wanted):
        return types.is_map(kind) and _fits(kind.key_type, wanted.key_type) and _fits(kind.item_type, wanted.item_type)
    if types.is_string(wanted):
        return bool(types.is_string(kind) or types.is_large_string(kind))
    return any(same(kind) and same(wanted) for same in (types.is_integer, types.is_floating, types.is_boolean))


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


def trajectory_in(content: Mapping[str, Any], row: int) -> Trajectory:
    """Return the trajectory that a row of a file holds, of this version or an earlier one.

    Args:
        content: What the row has in each column.
        row: Its number, for messages.

    Raises:
        DataError: It holds none. The message names column and row.
    """
    for column, value in content.items():
        if column in SCHEMA.names and not _is_full(column, value):
            raise DataError(f"Column {column!r}, row {row}: expected no null and no number below 0, got {value!r:.80}.")
    where = f"row {row}"
    try:
        trajectory = Trajectory(
            seed=content["seed"],
            group=content["group"],
            tokens=content["tokens"],
            mask=content["mask"],
            log_probs=content["log_probs"],
            replies=[Reply(**{**one, "versions": tuple(one.get("versions", ()))}) for one in content["replies"]],
            messages=[message_in(message) for message in content["messages"]],
            parts=dict(content["parts"]),
            score=content["score"],
            score_error=content.get("score_error"),
            score_kind=content.get("score_kind", "reward"),
            ending=content["ending"],
            row_starts=content.get("row_starts", [0]),
            data_row=content.get("data_row"),
            seat=content.get("seat", 0),
            learnt={name: np.array(content[name], np.float32) for name in LEARNT if content.get(name)},
        )
    except (EnvironmentContractError, AttributeError, LookupError, TypeError) as error:
        raise DataError(f"Columns 'messages' and 'replies', {where}: expected those of an episode ({error}).") from None
    _check(trajectory, where)
    return trajectory


def _is_full(column: str, value: Any) -> bool:
    """Tell whether what a row has in a column is all there."""
    if column in _NUMBERS:
        return value >= 0 if isinstance(value, int) else column in _MAY_BE_NULL
    if isinstance(value, list):
        inner = [one for pair in value for one in pair] if column == "parts" else value
        return all(one is not None for one in inner)
    return value is not None or column in _MAY_BE_NULL


def _check(trajectory: Trajectory, where: str) -> None:
    """Check that what a trajectory says of its tokens is about them.

    Raises:
        DataError: It is not.
    """
    count = len(trajectory.tokens)
    if min(trajectory.tokens, default=0) < 0:
        raise DataError(f"Column 'tokens', {where}: expected numbers from 0 on, got {min(trajectory.tokens)}.")
    per_token: dict[str, Sized] = {"mask": trajectory.mask, "log_probs": trajectory.log_probs, **trajectory.learnt}
    for name, values in per_token.items():
        if (given := len(values)) != count:
            raise DataError(f"Column {name!r}, {where}: expected a value for each of {count} tokens, got {given}.")
    starts = trajectory.row_starts
    if starts[:1] != [0] or starts[-1] > count or sorted(starts) != starts:
        raise DataError(f"Column 'row_starts', {where}: expected places in {count} tokens, got {starts!r:.80}.")
    for reply in trajectory.replies:
        numbers, texts = (reply.start, reply.stop, reply.weight_version, *reply.versions), (reply.finish_reason,)
        whole = all(isinstance(one, int) for one in numbers) and all(isinstance(one, str) for one in texts)
        if not whole or not isinstance(reply.reward, float) or not 0 <= reply.start <= reply.stop <= count:
            raise DataError(f"Column 'replies', {where}: expected a part of {count} tokens, got {reply!r:.200}.")
    measures: dict[str, Iterable[float]] = {
        "score": [] if trajectory.score is None else [trajectory.score],
        "parts": trajectory.parts.values(),
        "replies": [reply.reward for reply in trajectory.replies],
    }
    for name, measured in measures.items():
        if (wrong := next((one for one in measured if not math.isfinite(one)), None)) is not None:
            raise DataError(f"Column {name!r}, {where}: expected finite numbers, got {wrong}.")
    if trajectory.score_kind not in get_args(ScoreKind):
        kinds = ", ".join(get_args(ScoreKind))
        raise DataError(f"Column 'score_kind', {where}: expected one of {kinds}, got {trajectory.score_kind!r:.80}.")

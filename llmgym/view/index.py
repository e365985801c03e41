"""`Index`: what filters ask of all episodes of a run, as columns in memory; what was said stays in the files."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from llmgym.data.trajectories import read_shard
from llmgym.errors import DataError, LLMGymError

_READ = ("seed", "group", "score", "ending", "parts", "replies", "data_row", "seat")
_MOST_PARTS = 64  # that have columns; a file of others' making may have any number
_AT_LEAST = 0.25  # seconds of reading, before what was read is shown

Array = NDArray[Any]


@dataclass(frozen=True)
class Episodes:
    """Columns over the episodes of a run, a row per episode.

    Attributes:
        files: That they are in.
        file: Which of them.  [E]
        row: Of the file.  [E]
        step: The training step; 0 for an evaluation.  [E]
        index: Which episode of the step it is.  [E]
        seed: Of its environment.  [E]
        group: Its siblings have the same.  [E]
        seat: Of its environment.  [E]
        data_row: Of a data set; -1 if it is about none.  [E]
        score: NaN if it is missing.  [E]
        success: 1 or 0; NaN if the environment does not say.  [E]
        ending: In a word.  [E]
        turns: Replies.  [E]
        length: Sampled tokens; where there are none here, as many as a server says.  [E]
        parts: The parts of the scores, by name; NaN where there is none.  [E]
    """

    files: Sequence[Path]
    file: Array
    row: Array
    step: Array
    index: Array
    seed: Array
    group: Array
    seat: Array
    data_row: Array
    score: Array
    success: Array
    ending: Array
    turns: Array
    length: Array
    parts: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.step)

    def task(self, at: int) -> str:
        """Return the task of an episode in words."""
        return f"seed {self.seed[at]}" if self.data_row[at] < 0 else f"row {self.data_row[at]}"

    def place(self, step: int, index: int) -> int:
        """Return where an episode is.

        Raises:
            DataError: It is not there.
        """
        found = np.flatnonzero((self.step == step) & (self.index == index))
        if not len(found):
            raise DataError(f"Step {step} has no episode {index} that is stored, or it is not read yet.")
        return int(found[0])

    def siblings(self, at: int) -> Array:
        """Return where the episodes of a group are, given one of them."""
        return np.flatnonzero((self.step == self.step[at]) & (self.group == self.group[at]))


class Index:
    """The columns of all files of a run, which grow as the run does.

    Args:
        run: The directory of a training run, or of an evaluation.

    Attributes:
        episodes: Of the files that were read so far.
        faults: What is wrong with files that cannot be read, by their names.
        pending: Files that are still to be read.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._read: dict[Path, tuple[object, dict[str, Any]]] = {}
        self.faults: dict[str, str] = {}
        self.pending = 0
        self.episodes = _together([])

    def refresh(self, tell: Callable[[], object] = lambda: None) -> None:
        """Read the files that are new or others than they were, and forget those that are gone.

        Args:
            tell: Is called when `episodes` has grown.
        """
        found = {path: stamp for path in self._files() if (stamp := stamp_of(path)) is not None}
        gone = self._read.keys() - found.keys()
        for path in gone:
            del self._read[path]
            self.faults.pop(path.name, None)
        new = [path for path in found if path not in self._read or self._read[path][0] != found[path]]
        if not gone and not new:
            return
        shown = time.monotonic()
        for number, path in enumerate(new):
            self.faults.pop(path.name, None)
            try:
                columns = _columns(path)
            except DataError as error:
                self.faults[path.name] = str(error)
                columns = {}
            self._read[path] = found[path], columns
            self.pending = len(new) - number - 1
            if time.monotonic() - shown > _AT_LEAST:
                self._show(tell)
                shown = time.monotonic()
        self._show(tell)

    def _show(self, tell: Callable[[], object]) -> None:
        whole = [(path, columns) for path, (_, columns) in sorted(self._read.items()) if columns]
        self.episodes = _together(whole)
        tell()

    def _files(self) -> list[Path]:
        """Return the files, as their names say; what is half written has another name."""
        return sorted([*self._run.glob("trajectories/step-*.parquet"), *self._run.glob("episodes-*.parquet")])


def stamp_of(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file does, or a link to none; None if there is neither."""
    for look in (path.stat, path.lstat):
        with contextlib.suppress(OSError):
            stat = look()
            return stat.st_ino, stat.st_mtime_ns, stat.st_size
    return None


@contextlib.contextmanager
def expected(what: str, path: Path) -> Iterator[None]:
    """Say that a file holds something else than expected, whatever fails because of that.

    Raises:
        DataError: Something has failed.
    """
    try:
        yield
    except LLMGymError:
        raise
    except (pa.ArrowException, LookupError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"{str(path)!r}: expected {what}, got something else ({error!r:.200}).") from None


def _columns(path: Path) -> dict[str, Any]:
    """Return the columns of one file.

    Raises:
        DataError: It holds something else.
    """
    if path.is_symlink() and not path.exists():
        raise DataError(f"{str(path)!r}: expected a file, got a link to none.")
    table = read_shard(path, _READ)
    with expected("the columns of trajectories", path):
        return _columns_of(table, *_place_of(path))


def _place_of(path: Path) -> tuple[int, int]:
    """Return the step of a file's episodes, and which of the step its first one is."""
    kind, _, number = path.stem.rpartition("-")
    return (int(number), 0) if kind == "step" else (0, int(number))


def _columns_of(table: pa.Table, step: int, first: int) -> dict[str, Any]:
    count = table.num_rows
    columns = {name: table.column(name).combine_chunks() for name in table.column_names}
    parts = _parts(columns["parts"], count)
    replies = columns["replies"]
    of, inner = pc.list_parent_indices(replies).to_numpy(), pc.list_flatten(replies)
    lengths = pc.cast(pc.subtract(inner.field("stop"), inner.field("start")), pa.int64())
    if inner.type.get_field_index("written") >= 0:  # as a server counts what has no tokens here
        lengths = pc.add(lengths, pc.fill_null(inner.field("written"), 0))
    nothing = np.full(count, np.nan)
    return {
        "row": np.arange(count),
        "step": np.full(count, step),
        "index": np.arange(first, first + count),
        "seed": _whole(columns["seed"]),
        "group": _whole(columns["group"]),
        "seat": _whole(columns["seat"]) if "seat" in columns else np.zeros(count, np.int64),
        "data_row": _whole(columns["data_row"]) if "data_row" in columns else np.full(count, -1),
        "score": columns["score"].cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64),
        "success": parts.get("success", nothing),
        "ending": np.array(columns["ending"].cast(pa.string()).fill_null("").to_pylist(), dtype=object),
        "turns": np.bincount(of, minlength=count),
        "length": np.bincount(of, lengths.to_numpy(zero_copy_only=False), minlength=count).astype(np.int64),
        "parts": {name: values for name, values in parts.items() if name != "success"},
    }


def _whole(column: pa.Array) -> Array:
    numbers: Array = column.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
    return numbers


def _parts(column: pa.MapArray, count: int) -> dict[str, Array]:
    """Return a column for each key of a map; NaN where a row does not have it."""
    offsets = column.offsets.to_numpy()
    of = np.repeat(np.arange(count), np.diff(offsets))
    within = slice(int(offsets[0]), int(offsets[-1])) if count else slice(0, 0)
    keys = column.keys[within].dictionary_encode()
    values = column.items[within].cast(pa.float64()).to_numpy(zero_copy_only=False)
    codes = keys.indices.to_numpy(zero_copy_only=False)
    found = {}
    for code, name in enumerate(keys.dictionary.to_pylist()[:_MOST_PARTS]):
        found[str(name)] = numbers = np.full(count, np.nan)
        chosen = codes == code
        numbers[of[chosen]] = values[chosen]
    return found


def _together(shards: Sequence[tuple[Path, dict[str, Any]]]) -> Episodes:
    """Return the columns of all files one after another."""
    counts = [len(columns["row"]) for _, columns in shards]
    names = list(dict.fromkeys(name for _, columns in shards for name in columns["parts"]))[:_MOST_PARTS]
    parts = {
        name: _joined(
            columns["parts"].get(name, np.full(count, np.nan))
            for (_, columns), count in zip(shards, counts, strict=True)
        )
        for name in names
    }
    plain = [name for name in Episodes.__annotations__ if name not in ("files", "file", "parts")]
    return Episodes(
        files=[path for path, _ in shards],
        file=np.repeat(np.arange(len(shards)), counts),
        parts=parts,
        **{name: _joined(columns[name] for _, columns in shards) for name in plain},
    )


def _joined(arrays: Any) -> Array:
    listed = list(arrays)
    return np.concatenate(listed) if listed else np.zeros(0, np.int64)

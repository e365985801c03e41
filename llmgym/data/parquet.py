"""`open_parquet`: the one door that Parquet is read through, whoever wrote it."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llmgym.data.strict_json import from_json
from llmgym.errors import DataError, LLMGymError
from llmgym.files import require_file

_KEY = b"llmgym"
_BROKEN = (
    pa.ArrowException,
    OSError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    MemoryError,
)
"""What Arrow raises of a file that is damaged, or none of Parquet; OSError of a checksum that does not match."""


@contextlib.contextmanager
def open_parquet(path: Path, kind: str = "Parquet") -> Iterator[tuple[pq.ParquetFile, dict[str, Any]]]:
    """Open a Parquet file, to be read while the context lasts; page checksums are verified where there are some.

    Args:
        path: The file.
        kind: What it should be, for messages.

    Yields:
        The file, and what llmgym wrote beside its rows: ``kind`` and ``version``; empty if another program wrote them.

    Raises:
        DataError: It cannot be opened, or read within the context.
    """
    try:
        require_file(path)
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file, _label(path, file.schema_arrow.metadata or {})
    except LLMGymError:
        raise
    except _BROKEN as error:
        raise DataError(f"{str(path)!r} cannot be read as {kind}: {error or type(error).__name__}") from error


def require_kind(label: Mapping[str, Any], path: Path, kind: str, version: int) -> None:
    """See that llmgym wrote rows of one kind, and none that a later version of it wrote.

    Args:
        label: What it wrote beside them, see `open_parquet`.
        path: The file, for messages.
        kind: The kind that is expected.
        version: The newest that is known.

    Raises:
        DataError: They are something else.
    """
    if label.get("kind") != kind or label["version"] > version:
        raise DataError(
            f"{str(path)!r}: expected {kind} of version {version} or earlier, "
            f"got {label.get('kind', 'something else')} of version {label.get('version', 'unknown')}."
        )


def _label(path: Path, metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Return what llmgym wrote beside the rows of a file.

    Raises:
        DataError: It is nothing that llmgym writes.
    """
    if _KEY not in metadata:
        return {}
    try:
        label = from_json(metadata[_KEY].decode())
    except ValueError:  # UTF-8 is broken, or JSON
        label = None
    if not isinstance(label, dict) or type(label.get("version")) is not int or not isinstance(label.get("kind"), str):
        raise DataError(
            f'{str(path)!r}: expected metadata {_KEY.decode()!r} such as {{"kind": "trajectories", "version": 1}}, '
            f"got {metadata[_KEY][:80]!r}."
        )
    return label

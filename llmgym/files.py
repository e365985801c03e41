"""Files that are either whole or absent."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sync(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def require_file(path: Path) -> None:
    """See that a path is no pipe or device, which may have no end, or nothing for whoever waits for it.

    Raises:
        OSError: It is one.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError("expected a file, got a pipe, socket or device")


def give_usual_mode(path: Path) -> None:
    """Let those read and write a file whom the umask lets, whatever the library that wrote it has chosen."""
    umask = os.umask(0o077)  # Python tells it only this way
    os.umask(umask)
    path.chmod(0o666 & ~umask)


@contextmanager
def whole_or_absent(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; what is written there takes the name at the end.

    A write that fails or is killed leaves `path` as it was.

    Raises:
        OSError: It cannot be written, or `path` is a directory, a pipe or a device.
    """
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "there is something else than a file", str(path))
    temporary = path.with_name(f".{path.name}.partial")
    try:
        yield temporary
        give_usual_mode(temporary)
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory, and all that is in it, are on the disk."""
    for inner in path.iterdir():
        if inner.is_dir():
            sync_directory(inner)
        else:
            sync(inner)
    _sync_names(path)


def rename(source: Path, target: Path) -> None:
    """Give a file or directory another name, and wait until the disk knows it."""
    source.replace(target)
    _sync_names(target.parent)


def _sync_names(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""`OwnDirectory`: a temporary directory, and who removes it if its process cannot."""

import contextlib
import fcntl
import os
import platform
import shutil
import tempfile
from pathlib import Path

_OWNER = "owner"  # a file that is locked while the process lives; it holds the name of the machine


class OwnDirectory:
    """A new directory that only this user can read.

    A process that is killed cannot remove its own. So whoever makes one removes those with the same prefix whose
    processes are gone: of this user, from this machine, with a lock that nobody holds. On a file system without locks
    none is removed.

    Args:
        prefix: What its name begins with; chance adds the rest.
        root: Where it is made; in the temporary directory if None.

    Attributes:
        path: Of the directory.
    """

    def __init__(self, prefix: str, root: Path | None = None) -> None:
        root = Path(tempfile.gettempdir()) if root is None else root
        for other in root.glob(f"{prefix}*"):
            with contextlib.suppress(OSError):  # it is in use, somebody else's, or no directory
                _remove_if_left(other)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=root))
        self._owner = os.open(self.path / _OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with contextlib.suppress(OSError):
            fcntl.flock(self._owner, fcntl.LOCK_EX)
            os.write(self._owner, platform.node().encode())  # at last: without a name it is never removed

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._owner)

    def keep(self) -> None:
        """Leave it to the user: nobody removes it any more."""
        with contextlib.suppress(OSError):
            (self.path / _OWNER).unlink()
        os.close(self._owner)


def _remove_if_left(path: Path) -> None:
    """Remove a directory whose owner is gone.

    Raises:
        OSError: It is not ours, or its owner is there.
    """
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(directory).st_uid != os.geteuid():
            return
        owner = os.open(_OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.read(owner, 1024) == platform.node().encode():
                shutil.rmtree(path)
        finally:
            os.close(owner)
    finally:
        os.close(directory)

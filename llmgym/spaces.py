"""The space of all texts, which Gymnasium's own `Text` space is not."""

import os
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gymnasium.spaces import Text
from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory, write_to_shared_memory

from llmgym.directories import OwnDirectory

_SAMPLE_ALPHABET = 'abcdefghijklmnopqrstuvwxyz ABC 0123456789 .,:;!?-\n{}[]"é中文日志🙂'


class UnicodeText(Text):
    r"""Every Python string, the empty one and those with newlines or any script included.

    `gymnasium.spaces.Text` needs its alphabet listed and refuses ``""``, ``"\n"`` and ``"é"`` by default; what a
    language model writes fits no list. This space is a `Text` to whoever asks, such as TorchRL, which makes a
    `NonTensor` of it. In a vector environment `n` texts are a tuple of `n` strings.

    Args:
        seed: Seed of `sample`.
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(sys.maxsize, min_length=0, charset=frozenset(_SAMPLE_ALPHABET), seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        """A text has no fixed length, so it does not flatten to an array."""
        return False

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> str:
        """Return a short random text of several scripts."""
        if mask is not None or probability is not None:
            raise ValueError("UnicodeText.sample takes neither a mask nor a probability.")
        length = int(self.np_random.integers(0, 64))
        return "".join(self.np_random.choice(list(_SAMPLE_ALPHABET), size=length))

    def contains(self, x: Any) -> bool:
        """Tell whether `x` is a string."""
        return isinstance(x, str)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnicodeText)

    def __hash__(self) -> int:
        return hash(UnicodeText)

    def __repr__(self) -> str:
        return "UnicodeText()"


# How the processes of Gymnasium's `AsyncVectorEnv` share texts of any length: as files, one per environment.
_directories: dict[str, OwnDirectory] = {}  # those that this process made, by their paths


class _SharedTexts(Sequence[str]):
    """The newest texts of all environments; a copy of it is a tuple of strings.

    `AsyncVectorEnv` takes it for the observations once, and copies it after every step.
    """

    def __init__(self, folder: str, count: int) -> None:
        self._files = [Path(folder, str(index)) for index in range(count)]
        weakref.finalize(self, _remove, folder, os.getpid())

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self)[index]
        file = self._files[index]
        return _decoded(file.read_bytes()) if file.exists() else ""

    def __deepcopy__(self, memo: dict[int, Any]) -> tuple[str, ...]:
        return tuple(self)


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # and not a process that was forked
        _directories.pop(folder).remove()


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


@create_shared_memory.register  # type: ignore[arg-type]  # Gymnasium only hands it on
def _create(space: UnicodeText, n: int = 1, ctx: Any = None) -> str:
    directory = OwnDirectory("llmgym-texts-")
    _directories[folder := str(directory.path)] = directory
    return folder


@read_from_shared_memory.register  # type: ignore[arg-type]  # Gymnasium only copies it
def _read(space: UnicodeText, shared_memory: str, n: int = 1) -> _SharedTexts:
    return _SharedTexts(shared_memory, n)


@write_to_shared_memory.register
def _write(space: UnicodeText, index: int, value: str, shared_memory: str) -> None:
    Path(shared_memory, str(index)).write_bytes(value.encode("utf-8", "surrogatepass"))

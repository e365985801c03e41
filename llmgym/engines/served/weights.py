"""`Weights`: one version of the learner's weights, as tensors and as a directory of safetensors."""

import shutil
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from llmgym.errors import EngineError
from llmgym.files import whole_or_absent

Bucket = list[tuple[str, Tensor]]
"""Names and tensors."""

_BUCKET_BYTES = 512 * 2**20  # of tensors that are handed over at once


class Weights:
    """One version of the weights, kept so that an engine that was lost can be given them again.

    The tensors are the learner's own, not copies. They are handed over again only as long as
    the learner has not written to them since.

    Args:
        tensors: Names and tensors.
        version: What completions are stamped with.
        tag: What a server calls this version; no other run has the same.
        root: Where the directory of safetensors is made.
    """

    def __init__(self, tensors: Iterable[tuple[str, Tensor]], version: int, tag: str, root: Path) -> None:
        self.version, self.tag = version, tag
        self._path = root / tag
        self._tensors = [(name, tensor.detach()) for name, tensor in tensors]
        self._written = [tensor._version for _, tensor in self._tensors]  # counts writes in place

    def buckets(self) -> Iterator[Bucket]:
        """Yield names and tensors, as many at once as fit in half a GiB.

        Raises:
            EngineError: The learner has written to them since.
        """
        self._check_unwritten()
        bucket: Bucket = []
        size = 0
        for name, tensor in self._tensors:
            if bucket and size + tensor.nbytes > _BUCKET_BYTES:
                yield bucket
                bucket, size = [], 0
            bucket.append((name, tensor))
            size += tensor.nbytes
        yield bucket

    @cached_property
    def directory(self) -> Path:
        """A directory with these weights and nothing else, written when first asked for.

        Raises:
            EngineError: The learner has written to them before that.
        """
        self._check_unwritten()
        self._path.mkdir()
        with whole_or_absent(self._path / "model.safetensors") as path:
            save_file({name: tensor.contiguous() for name, tensor in self._tensors}, path)
        return self._path

    def discard(self) -> None:
        """Remove the directory; newer weights have taken the place of these."""
        shutil.rmtree(self._path, ignore_errors=True)

    def _check_unwritten(self) -> None:
        if [tensor._version for _, tensor in self._tensors] != self._written:
            raise EngineError(
                f"A server was lost and cannot be given version {self.version} of the weights again: "
                "they were trained on since, before load_weights was called."
            )

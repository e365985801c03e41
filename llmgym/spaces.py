"""The space of all texts, which Gymnasium's own `Text` space is not."""

from typing import Any

from gymnasium.spaces import Space

_SAMPLE_ALPHABET = 'abcdefghijklmnopqrstuvwxyz ABC 0123456789 .,:;!?-\n{}[]"é中文日志🙂'


class UnicodeText(Space[str]):
    r"""Every Python string, the empty one and those with newlines or any script included.

    `gymnasium.spaces.Text` needs its alphabet listed and refuses ``""``, ``"\n"`` and
    ``"é"`` by default; what a language model writes fits no list. In a vector environment
    `n` texts are a tuple of `n` strings, as Gymnasium batches any space it does not know.

    Args:
        seed: Seed of `sample`.
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(shape=None, dtype=str, seed=seed)

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

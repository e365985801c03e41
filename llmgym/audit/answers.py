"""`Answers`: what experts reply, and which of several replies is the answer."""

import re
from collections.abc import Sequence
from functools import cached_property

_TAG = re.compile(r"<[^<>]{0,80}>")
_WORD = re.compile(r"[\w.+-]*\w")


def normal(text: str) -> str:
    """Return a text without capitals, and without white space that only sets it apart."""
    return " ".join(text.casefold().split())


def last_word(text: str) -> str:
    """Return the last word or number of a text, tags left out.

    Examples:
        >>> last_word('Two and two. <answer>4</answer>'), last_word('{"service": "auth"}'), last_word("So it is **B**.")
        ('4', 'auth', 'b')
    """
    words = _WORD.findall(_TAG.sub(" ", text[-2000:]))
    return words[-1].casefold() if words else ""


class Answers:
    """The experts' replies to tasks.

    The answer to a task is the last of its replies in which experts of different tasks differ: where all of them end
    with the same word, such as "done", it is the one before.

    Args:
        replies: The replies to each task, by seed.
    """

    def __init__(self, replies: dict[int, tuple[str, ...]]) -> None:
        self.replies = replies

    def answer(self, seed: int) -> str:
        """Return the answer to a task."""
        said = self.replies[seed]
        return said[-min(self._from_the_end, len(said))]

    def lucky(self, seed: int, said: Sequence[str], *, by_last_word: bool) -> bool:
        """Tell whether some reply is the answer to a task.

        Wherever few answers are possible, that of one task is often right for another.

        Args:
            seed: The task.
            said: The replies.
            by_last_word: Whether a reply that ends in the same word is the answer, too.
        """
        if seed not in self.replies:
            return False
        answer = self.answer(seed)
        if any(normal(reply) == normal(answer) for reply in said):
            return True
        return by_last_word and self._words_differ and any(last_word(reply) == last_word(answer) for reply in said)

    @cached_property
    def _from_the_end(self) -> int:
        longest = max(map(len, self.replies.values()), default=1)
        for back in range(1, longest + 1):
            if len({normal(said[-min(back, len(said))]) for said in self.replies.values()}) > 1:
                return back
        return 1

    @cached_property
    def _words_differ(self) -> bool:
        return len({last_word(self.answer(seed)) for seed in self.replies}) > 1

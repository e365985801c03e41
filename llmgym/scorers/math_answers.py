"""A scorer of mathematical answers: it takes an expression that equals the answer for right, however it is written."""

import functools
import logging
import re
from collections.abc import Sequence
from typing import Any, ClassVar

from llmgym.errors import import_extra
from llmgym.scorers.answers import judged
from llmgym.types import Episode, Score

_MOST_CHARS = 5_000  # of the end of a reply
_MARKED = re.compile(r"\$|\\\(|\\\[|\\boxed|\\begin")  # where LaTeX begins


class Math:
    r"""Compare the last reply with the answer by the package ``math-verify``: 1/2, 0.5 and ``\frac{1}{2}`` are equal.

    Of the last 5,000 characters of the reply, the expression that the package takes for the answer counts: LaTeX within
    a box, dollars or brackets, else a number. The answer is LaTeX, with or without any of these, or a number. One in
    which the package finds nothing is a missing score.

    Simplifying can take forever, and all memory: ``10^{10^{10}}`` does. The package's own limits of time are signals,
    which only a main thread can receive, so they are off here. With worker processes for scorers, such a call costs the
    score of its episode; without them it stops the run.

    Raises:
        ConfigError: The package is missing.
    """

    name: ClassVar[str] = "math"
    per: ClassVar[str] = "episode"
    may_hang: ClassVar[bool] = True

    def __init__(self) -> None:
        _package()

    def score(self, episodes: Sequence[Episode]) -> list[Score]:
        """Compare the last reply of each."""
        return [self._of(one) for one in episodes]

    def _of(self, episode: Episode) -> Score:
        unread: list[str] = []

        def equal(reply: str, answer: str) -> bool:
            wanted = _expressions(answer if _MARKED.search(answer) else f"${answer}$")
            if not wanted:
                unread.append(answer)
                return False
            found = _expressions(reply[-_MOST_CHARS:])
            return bool(found) and bool(_package().verify(wanted, found, timeout_seconds=None))

        score = judged(episode, equal)
        if score.value == 0.0 and unread:
            return Score(None, error=f"math-verify finds no expression in the answer {unread[0]!r:.80}")
        return score


def _expressions(text: str) -> Any:
    """Return what the package reads in a text: expressions of sympy, none of them left as text."""
    found = _package().parse(text, parsing_timeout=None)
    return [one for one in found if not isinstance(one, str)]


@functools.cache
def _package() -> Any:
    package = import_extra("math_verify", extra="math")
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it would warn that there is no limit of time
    return package

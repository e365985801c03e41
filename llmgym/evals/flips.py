"""`Flip`: an episode that came out otherwise, and where the two begin to differ."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from llmgym.rollout.trajectory import Trajectory


@dataclass(frozen=True)
class Divergence:
    """Where two episodes of one task begin to differ.

    Attributes:
        reply: In which reply, counted from 1; None if not in one.
        token: At which token of that reply, counted from 1; None if not in one.
        before: What that message says in both.
        first: How it goes on in the first episode; None if that was over already.
        second: How it goes on in the second one.
    """

    reply: int | None
    token: int | None
    before: str
    first: str | None
    second: str | None


@dataclass(frozen=True)
class Flip:
    """Two episodes of a task that came out differently.

    Attributes:
        task: In words.
        sample: Which of the task's samples, counted from 0.
        first: What the first episode came to.
        second: What the second one came to.
        divergence: Where they begin to differ; None if both say the same.
    """

    task: str
    sample: int
    first: float
    second: float
    divergence: Divergence | None


def divergence(first: Trajectory, second: Trajectory) -> Divergence | None:
    """Return where two episodes of one task begin to differ; None if both say the same.

    A system prompt that only one has is no difference. Tokens are counted as each tokenizer cuts them.
    """
    said = [[one for one in episode.messages if one.role != "system"] for episode in (first, second)]
    shown = sum(message.role == "assistant" for message in said[0]) - len(first.replies)  # and not sampled
    number = -shown  # of the reply
    for pair in itertools.zip_longest(*said):
        sampled = any(message is not None and message.role == "assistant" for message in pair)
        number += sampled
        if pair[0] == pair[1]:
            continue
        texts = ["" if message is None else message.content for message in pair]
        before = texts[0][: _alike(*texts)]
        rest = [None if message is None else message.content[len(before) :] for message in pair]
        in_reply = sampled and number > 0
        return Divergence(
            number if in_reply else None, _token(first, second, number - 1) if in_reply else None, before, *rest
        )
    return None


def _token(first: Trajectory, second: Trajectory, reply: int) -> int | None:
    """Return the first token of a reply that differs, counted from 1; None where there are no tokens."""
    if reply >= min(len(first.replies), len(second.replies)) or first.without_tokens or second.without_tokens:
        return None
    replies = [one.tokens[one.replies[reply].start : one.replies[reply].stop] for one in (first, second)]
    return 1 + _alike(*replies)


def _alike(first: Sequence[object], second: Sequence[object]) -> int:
    """Return how many items two sequences have in common before they differ."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))

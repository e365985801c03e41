"""`RecordedSpeaker`: replies that were said before, in place of a model."""

from collections.abc import Mapping, Sequence

from llmgym.rollout.speaker import Asking, Spoken
from llmgym.rollout.trajectory import Trajectory


class RecordedSpeaker:
    """Answers each request of an episode with the next reply that the episode had.

    An episode that asks for more than it had, because its environment no longer says the same, is given an empty reply.

    Args:
        episodes: By their numbers.
    """

    concurrency = 1

    def __init__(self, episodes: Mapping[int, Trajectory]) -> None:
        self._left = {number: list(reversed(_replies(one))) for number, one in episodes.items()}

    def reply(self, asking: Asking) -> Spoken:
        """Return the next reply."""
        left = self._left[asking.number]
        return left.pop() if left else Spoken("", "stop")


def _replies(episode: Trajectory) -> Sequence[Spoken]:
    """Return what an agent said; a conversation may begin with replies that it did not."""
    said = [message.content for message in episode.messages if message.role == "assistant"]
    return [
        Spoken(text, one.finish_reason, one.read, one.written)
        for text, one in zip(said[len(said) - len(episode.replies) :], episode.replies, strict=True)
    ]

"""`RecordedEngine`: replies that were sampled before, in place of a model."""

from collections.abc import Iterable, Mapping, Sequence

from llmgym.engines.base import Completion, GenerationRequest


class RecordedEngine:
    """Answers each request of an episode with the next reply that the episode had.

    An episode that asks for more than it had, because its environment no longer says the same, is given the first stop
    token.

    Args:
        replies: Of each episode, by its id, oldest first.
    """

    weight_version = 0
    context_length = 2**31

    def __init__(self, replies: Mapping[int, Sequence[Completion]]) -> None:
        self._left = {episode: list(reversed(own)) for episode, own in replies.items()}
        self._asked: list[GenerationRequest] = []

    def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Take requests; returns at once."""
        self._asked += requests

    def wait(self) -> list[Completion]:
        """Return the replies to all requests."""
        asked, self._asked = self._asked, []
        return [self._reply(request) for request in asked]

    def _reply(self, request: GenerationRequest) -> Completion:
        left = self._left[request.episode_id]
        if left:
            return left.pop()
        return Completion(request.request_id, [request.stop_token_ids[0]], [0.0], "stop", self.weight_version)

    def abort(self) -> None:
        """Drop every request."""
        self._asked = []

    def release(self, episode_ids: Iterable[int]) -> None:
        """Forget episodes that are over."""
        for episode in episode_ids:
            self._left.pop(episode, None)

    def close(self) -> None:
        """Forget all."""
        self._left = {}

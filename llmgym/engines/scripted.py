"""`ScriptedEngine`: replies from a function, for the fast tests of everything around an engine."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from llmgym.engines.base import Completion, GenerationRequest


class ScriptedEngine:
    """Answers every request with what a function says, in an order that a function chooses.

    Args:
        reply: Returns the tokens of the reply, the stop token included.
        context_length: Tokens of prompt and reply that fit.
        order: Picks which of the waiting requests finish next; all of them by default.
    """

    counts_log_probs: Literal[True] = True

    def __init__(
        self,
        reply: Callable[[GenerationRequest], list[int]],
        context_length: int = 4096,
        order: Callable[[list[GenerationRequest]], list[GenerationRequest]] = list,
    ) -> None:
        self.context_length = context_length
        self.weight_version = 0
        self.released: set[int] = set()
        self._reply, self._order = reply, order
        self._waiting: list[GenerationRequest] = []

    def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Take requests."""
        self._waiting += requests

    def wait(self) -> list[Completion]:
        """Return the replies to the requests whose turn it is."""
        finished = self._order(self._waiting)
        self._waiting = [request for request in self._waiting if request not in finished]
        return [self._complete(request) for request in finished]

    def abort(self) -> None:
        """Drop every request."""
        self._waiting = []

    def release(self, episode_ids: Iterable[int]) -> None:
        """Note which episodes are over."""
        self.released |= set(episode_ids)

    def load_weights(self, weights: Iterable[tuple[str, Any]], version: int) -> None:
        """Take the version; there are no weights."""
        self.weight_version = version

    def close(self) -> None:
        """Nothing to give back."""

    def _complete(self, request: GenerationRequest) -> Completion:
        tokens = self._reply(request)[: request.max_tokens]
        stopped = bool(tokens) and tokens[-1] in request.stop_token_ids
        log_probs = [-0.5] * len(tokens)
        return Completion(request.request_id, tokens, log_probs, "stop" if stopped else "length", self.weight_version)

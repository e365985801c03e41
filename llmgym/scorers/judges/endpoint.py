"""`Endpoint`: a language model that an OpenAI-compatible server has."""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from llmgym.scorers.judges.chat import Answer, Question
from llmgym.scorers.judges.completions import ChatServer, Completed, NoCompletionError


class Endpoint:
    """A model that an OpenAI-compatible server has: OpenAI, SGLang, vLLM, and others.

    What can pass is tried again; see `client_of`. Anything else is an error at once.

    Args:
        url: Where its API is, such as ``http://127.0.0.1:30000/v1``.
        model: What the server calls it.
        key: The secret that it asks for, if it does.
        temperature: Of sampling.
        max_tokens: Tokens of an answer, at most.
        extra: More fields of the request, such as ``{"chat_template_kwargs": {"enable_thinking": False}}``.
        concurrency: Requests under way, at most.
        per_minute: Requests that are begun in a minute, at most; None for no limit.
        timeout: Seconds that a request may take.
        retries: How often one is tried again.
    """

    waits = True

    def __init__(
        self,
        url: str,
        model: str,
        key: str | None = None,
        *,
        temperature: float = 0.0,
        max_tokens: int = 512,
        extra: Mapping[str, Any] | None = None,
        concurrency: int = 16,
        per_minute: float | None = None,
        timeout: float = 60.0,
        retries: int = 4,
    ) -> None:
        self._server = ChatServer(url, key, timeout=timeout, retries=retries)
        self._sampling: dict[str, Any] = {"model": model, "temperature": temperature, "max_tokens": max_tokens}
        self._extra = dict(extra or {})
        self._places = threading.BoundedSemaphore(concurrency)
        self._pause = 0.0 if per_minute is None else 60.0 / per_minute
        self._next, self._clock = 0.0, threading.Lock()
        self.identity = {"url": url, **self._sampling, "extra": self._extra}

    def answers(self, questions: Sequence[Question]) -> list[Answer]:
        """Ask one question after another; see `ChatModel`."""
        return [self._answer(question) for question in questions]

    def _answer(self, question: Question) -> Answer:
        with self._places:
            self._wait_for_turn()
            try:
                found = self._server.complete(
                    [message.chat for message in question.messages], {**self._sampling, **self._extra}
                )
            except NoCompletionError as error:
                return Answer(None, str(error))
        return _read(found)

    def _wait_for_turn(self) -> None:
        """Wait until the next request may begin."""
        with self._clock:
            begin = max(self._next, time.monotonic())
            self._next = begin + self._pause
        time.sleep(max(0.0, begin - time.monotonic()))


def _read(found: Completed) -> Answer:
    """Return what a completion says."""
    read, written = found.read or 0, found.written or 0
    if found.text is None:
        return Answer(None, f"the server answered with no text, but {found.shown} ({found.reason})", read, written)
    if found.reason == "length":
        return Answer(None, "the answer was cut off at max_tokens", read, written)
    if found.reason not in ("stop", None):
        return Answer(None, f"the answer was ended by {found.reason!r:.80}", read, written)
    return Answer(found.text, None, read, written)

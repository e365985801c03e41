"""`Endpoint`: a language model that an OpenAI-compatible server has."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import openai

from llmgym.errors import said_by
from llmgym.scorers.judges.addresses import quoted, without_key
from llmgym.scorers.judges.chat import Answer, Question
from llmgym.scorers.judges.transport import client_of
from llmgym.types import well_formed


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
        self._client = client_of(url, key, timeout=timeout, retries=retries)
        self._url, self._key = url, key
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
                reply = self._client.chat.completions.create(
                    messages=[message.chat for message in question.messages],  # type: ignore[misc]  # it has classes
                    extra_body=self._extra,
                    **self._sampling,
                )
            except openai.APIError as error:
                return self._failed(f"gave no answer: {said_by(error)}")
            except Exception as error:  # noqa: BLE001  # whatever it sends, it costs this answer and no other
                return self._failed(f"answered with what is no completion: {said_by(error)}")
        answer = _read(reply)
        text, reason = (one and without_key(one, self._key) for one in (answer.text, answer.error))
        return replace(answer, text=text, error=reason)

    def _failed(self, how: str) -> Answer:
        """Return that there is no answer."""
        return Answer(None, quoted(self._url, how, self._key))

    def _wait_for_turn(self) -> None:
        """Wait until the next request may begin."""
        with self._clock:
            begin = max(self._next, time.monotonic())
            self._next = begin + self._pause
        time.sleep(max(0.0, begin - time.monotonic()))


def _read(reply: Any) -> Answer:
    """Return what a completion says; the library does not check that it is one."""
    try:
        choice = reply.choices[0]
        text, reason = choice.message.content, choice.finish_reason
    except (AttributeError, LookupError, TypeError):
        return Answer(None, f"the server answered with what is no completion: {reply!r:.200}")
    usage = getattr(reply, "usage", None)
    read, written = (_count(getattr(usage, name, None)) for name in ("prompt_tokens", "completion_tokens"))
    if not isinstance(text, str):
        return Answer(None, f"the server answered with no text, but {text!r:.80} ({reason})", read, written)
    if reason == "length":
        return Answer(None, "the answer was cut off at max_tokens", read, written)
    if reason not in ("stop", None):
        return Answer(None, f"the answer was ended by {reason!r:.80}", read, written)
    return Answer(well_formed(text), None, read, written)


def _count(tokens: Any) -> int:
    """Return a number of tokens; 0 if a server says something else."""
    return tokens if type(tokens) is int and 0 <= tokens < 2**40 else 0

"""`ChatServer`: chat completions of an OpenAI-compatible server, read with care."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import openai

from llmgym.addresses import is_placeholder, quoted, without_key
from llmgym.errors import said_by
from llmgym.scorers.judges.transport import client_of
from llmgym.types import well_formed


class NoCompletionError(Exception):
    """A server gave no completion.

    Args:
        message: Why, without the key.
        status: The status of its answer, if it answered with an error.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Completed:
    """What a server completed a conversation with; no text has the key in it.

    Attributes:
        text: What the model says; None if the server sent no text.
        shown: What it sent in place of a text, for messages.
        reason: Why the model ended, in the server's words.
        refusal: Why the model refuses, if it does.
        calls: Name, arguments as they came, and id of each tool that it calls.
        read: Tokens of the conversation; None if the server does not say.
        written: Tokens of the completion; None if the server does not say.
    """

    text: str | None
    shown: str
    reason: str | None
    refusal: str | None
    calls: Sequence[tuple[str, Any, str | None]]
    read: int | None
    written: int | None


class ChatServer:
    """An OpenAI-compatible server: OpenAI, SGLang, vLLM, and others.

    What can pass is tried again; see `client_of`. Anything else is an error at once.

    Args:
        url: Where its API is, such as ``http://127.0.0.1:30000/v1``.
        key: The secret that it asks for, if it does.
        timeout: Seconds that a request may take.
        retries: How often one is tried again.
    """

    def __init__(self, url: str, key: str | None, *, timeout: float, retries: int) -> None:
        self._client = client_of(url, key, timeout=timeout, retries=retries)
        self._url, self._key = url, key
        self._secret = None if key is None or is_placeholder(key) else key

    def complete(self, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> Completed:
        """Return what a conversation is completed with.

        Args:
            messages: The conversation, in OpenAI's protocol.
            options: The other fields of the request.

        Raises:
            NoCompletionError: There is no completion.
        """
        try:
            body: Any = self._client.post(
                "/chat/completions", cast_to=object, body={"messages": list(messages), **options}
            )
        except openai.APIError as error:
            raise self._none(f"gave no answer: {said_by(error)}", getattr(error, "status_code", None)) from None
        except Exception as error:  # noqa: BLE001  # whatever it sends, it costs this answer and no other
            raise self._none(f"answered with what is no completion: {said_by(error)}") from None
        try:
            return self._read(body)
        except (AttributeError, LookupError, TypeError):
            raise self._none(f"answered with what is no completion: {body!r:.200}") from None

    def _none(self, how: str, status: int | None = None) -> NoCompletionError:
        return NoCompletionError(quoted(self._url, how, self._key), status)

    def _read(self, body: Any) -> Completed:
        choice = body["choices"][0]
        message, reason, usage = choice["message"], choice.get("finish_reason"), body.get("usage")
        content, calls = message.get("content"), message.get("tool_calls") or ()
        counts = usage if isinstance(usage, dict) else {}
        return Completed(
            text=self._safe(content) if isinstance(content, str) else None,
            shown=self._safe(f"{content!r:.80}"),
            reason=None if reason is None else self._safe(f"{reason}"),
            refusal=self._safe(refusal) if isinstance(refusal := message.get("refusal"), str) and refusal else None,
            calls=[self._call(one) for one in calls],
            read=_count(counts.get("prompt_tokens")),
            written=_count(counts.get("completion_tokens")),
        )

    def _call(self, call: Any) -> tuple[str, Any, str | None]:
        function, id = call["function"], call.get("id")
        arguments = function.get("arguments")
        given = self._safe(arguments) if isinstance(arguments, str) else arguments
        return self._safe(f"{function['name']}"), given, self._safe(id) if isinstance(id, str) else None

    def _safe(self, text: str) -> str:
        return well_formed(without_key(text, self._secret))


def _count(tokens: Any) -> int | None:
    """Return a number of tokens; None if a server says something else."""
    return tokens if type(tokens) is int and 0 <= tokens < 2**40 else None

"""`ChatEndpoint`: a model that an OpenAI-compatible server has, as what replies in episodes."""

from typing import Any

from llmgym.evals.config import Endpoint
from llmgym.rollout.openai_chat import reply_text, request_messages
from llmgym.rollout.speaker import Asking, NoReplyError, Spoken
from llmgym.scorers.judges.completions import ChatServer, NoCompletionError

_ENDED = ("stop", "tool_calls", "function_call", "length", None)  # some servers do not say
_TOO_LONG = ("context_length_exceeded", "context length", "context window")  # OpenAI's code; words of several servers


class ChatEndpoint:
    """Replies by asking a server for chat completions.

    Args:
        asked: Where it is, and how it is asked.
        model: What it calls the model.
        key: The secret that it asks for, if it does.
    """

    def __init__(self, asked: Endpoint, model: str, key: str | None) -> None:
        assert asked.url is not None
        self._server = ChatServer(asked.url, key, timeout=asked.timeout, retries=asked.retries)
        self._model, self._extra = model, asked.kwargs
        self.concurrency = asked.concurrency

    def reply(self, asking: Asking) -> Spoken:
        """Ask for a reply; see `Speaker`."""
        try:
            found = self._server.complete(request_messages(asking.messages, asking.tools), self._options(asking))
        except NoCompletionError as error:
            too_long = error.status == 400 and any(words in str(error).lower() for words in _TOO_LONG)
            raise NoReplyError(str(error), "context" if too_long else "no_reply", answered=too_long) from None
        if found.refusal is not None:
            raise NoReplyError(f"the model refuses: {found.refusal!r:.200}", answered=True)
        if found.reason not in _ENDED:
            raise NoReplyError(f"the reply was ended by {found.reason!r:.80}", answered=True)
        if found.text is None and not found.calls and found.reason != "length":
            raise NoReplyError(f"the server sent no text, but {found.shown}", answered=True)
        text = reply_text(found.text, found.calls if asking.tools else ())
        return Spoken(text, "length" if found.reason == "length" else "stop", found.read, found.written)

    def _options(self, asking: Asking) -> dict[str, Any]:
        """Return the fields of a request besides its messages; what says nothing is left out."""
        sampling = asking.sampling
        options = {
            "model": self._model,
            "max_tokens": asking.max_tokens,
            "temperature": sampling.temperature,
            "seed": asking.seed,
            "top_p": None if sampling.top_p == 1 else sampling.top_p,
            "top_k": sampling.top_k or None,
            "min_p": sampling.min_p or None,
            "stop": list(sampling.stop) or None,
            "tools": [dict(tool) for tool in asking.tools] or None,
            **self._extra,
        }
        return {name: value for name, value in options.items() if value is not None}

"""`client_of`: what talks to a server over HTTP, patiently but never without end."""

import importlib
import time
from collections.abc import Iterator
from typing import Any

import openai

httpx: Any = importlib.import_module(openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])
"""What openai sends its requests with: httpx, or httpx2."""

_MOST_BYTES = 2**24  # of a reply


def client_of(url: str, key: str | None, *, timeout: float, retries: int) -> openai.OpenAI:
    """Return a client of one server.

    What can pass is tried again, with growing pauses and chance in them: a server that cannot be reached, takes too
    long, has too much to do (429) or fails (5xx). Redirections are not followed.

    Args:
        url: Where its API is.
        key: The secret that it asks for, if it does.
        timeout: Seconds that a request may take.
        retries: How often one is tried again.
    """
    http = openai.DefaultHttpxClient(
        transport=_Transport(timeout),
        timeout=timeout,
        follow_redirects=False,
        headers={"Accept-Encoding": "identity"},  # what is compressed has no bound
    )
    client = openai.OpenAI(api_key=key or "none", base_url=url, timeout=timeout, max_retries=retries, http_client=http)
    client.organization = client.project = None  # those of the shell are for another server
    return client


class _Transport(httpx.HTTPTransport):  # type: ignore[misc]  # see above
    """Bounds a whole reply, where httpx bounds the time between two pieces of it.

    Args:
        timeout: Seconds that a request may take.
    """

    def __init__(self, timeout: float) -> None:
        super().__init__()
        self._timeout = timeout

    def handle_request(self, request: Any) -> Any:
        """Send a request."""
        until = time.monotonic() + self._timeout
        response = super().handle_request(request)
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise httpx.DecodingError("the reply is compressed, which it was not asked to be", request=request)
        response.stream = _Bounded(response.stream, until)
        return response


class _Bounded(httpx.SyncByteStream):  # type: ignore[misc]  # see above
    def __init__(self, stream: Any, until: float) -> None:
        self._stream, self._until = stream, until

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for piece in self._stream:
            size += len(piece)
            if time.monotonic() > self._until:
                raise httpx.ReadTimeout("the reply takes too long")
            if size > _MOST_BYTES:
                raise ValueError(f"it has more than {_MOST_BYTES} bytes")
            yield piece

    def close(self) -> None:
        self._stream.close()

"""`HostileServer`: a fake SGLang that answers one of its calls wrongly, in a way that has a name."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from aiohttp import web
from fake_server import KEY, FakeServer

VOCABULARY = 1000
_MIB = 2**20


@dataclass(frozen=True)
class Fault:
    """What one call is answered with.

    Attributes:
        answer: Given the request and what an honest server would say, answers it.
        path: Of the call.
    """

    answer: Callable[["HostileServer", web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]
    path: str = "/generate"


class HostileServer(FakeServer):
    """Answers some calls of one path with a fault, and everything else honestly.

    Args:
        fault: Its name in `FAULTS`.
        every: Which calls of the path it is: every first, every third.
        honest: How many calls are answered honestly before.

    Attributes:
        faulty: How many calls were answered with the fault.
        sent: Bytes of the answers that have no end.
        when_asked: Called before a faulty answer.
    """

    def __init__(self, fault: str, *, every: int = 1, honest: int = 0) -> None:
        self._fault, self._every, self._honest = FAULTS[fault], every, honest
        self._asked = self.faulty = self.sent = 0
        self.when_asked: Callable[[], object] = lambda: None
        super().__init__()

    async def _answer(self, request: web.Request) -> web.StreamResponse:  # type: ignore[override]
        if request.path != self._fault.path:
            return await super()._answer(request)
        self._asked += 1
        if self._asked <= self._honest or (self._asked - self._honest) % self._every:
            return await super()._answer(request)
        self.faulty += 1
        self.when_asked()
        reply: dict[str, Any] = {}
        if request.path in ("/generate", "/server_info", "/model_info"):
            honest = await super()._answer(request)
            reply = json.loads(honest.text or "{}")
        return await self._fault.answer(self, request, reply)


def _says(change: Callable[[dict[str, Any]], Any], path: str = "/generate") -> Fault:
    """Another JSON: what `change` returns for the honest one, or the honest one as it changed it."""

    async def answer(server: HostileServer, request: web.Request, reply: dict[str, Any]) -> web.StreamResponse:
        changed = change(reply)
        return web.Response(text=json.dumps(reply if changed is None else changed), content_type="application/json")

    return Fault(answer, path)


def _sends(body: bytes = b"", status: int = 200, path: str = "/generate", **headers: str) -> Fault:
    """Bytes, a status, headers, whose names have ``_`` for ``-``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def answer(server: HostileServer, request: web.Request, reply: dict[str, Any]) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers=named)

    return Fault(answer, path)


def _never(path: str = "/generate") -> Fault:
    async def answer(server: HostileServer, request: web.Request, reply: dict[str, Any]) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    return Fault(answer, path)


def _flows(piece: bytes, every: float, path: str = "/generate", **headers: str) -> Fault:
    """An answer without an end, a piece every so many seconds."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def answer(server: HostileServer, request: web.Request, reply: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers=named)
        await response.prepare(request)
        while True:
            await response.write(piece)
            server.sent += len(piece)
            await asyncio.sleep(every)

    return Fault(answer, path)


async def _resets(server: HostileServer, request: web.Request, reply: dict[str, Any]) -> web.StreamResponse:
    """Break the connection in the middle of the body."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"meta_info": {')
    assert request.transport is not None
    request.transport.abort()
    return response


def _meta(**fields: Any) -> Fault:
    return _says(lambda reply: reply["meta_info"].update(fields))


def _row(log_prob: Any, token: Any) -> Fault:
    """A row of the log-probabilities, between honest ones."""
    return _says(lambda reply: reply["meta_info"]["output_token_logprobs"].insert(1, [log_prob, token, None]))


def _short_rows(reply: dict[str, Any]) -> None:
    reply["meta_info"]["output_token_logprobs"] = [row[:1] for row in reply["meta_info"]["output_token_logprobs"]]


def _too_few(reply: dict[str, Any]) -> None:
    reply["output_ids"] = [token for _, token, _ in reply["meta_info"]["output_token_logprobs"]]
    reply["meta_info"]["output_token_logprobs"].pop()


def _stale(reply: dict[str, Any]) -> None:
    reply["meta_info"]["weight_version"] = "of somebody else"


_PAST = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
_FUTURE = format_datetime(datetime.now(UTC) + timedelta(days=365), usegmt=True)
_NEVER = "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"
_UPDATE = "/update_weights_from_disk"

PASSING = {
    "408": _sends(b"slow", 408),
    "429 with seconds": _sends(b"too many", 429, Retry_After="0"),
    "429 for a second": _sends(b"too many", 429, Retry_After="1"),
    "429 with a date": _sends(b"too many", 429, Retry_After=_PAST),
    "429 for a year": _sends(b"too many", 429, Retry_After=_FUTURE),
    "429 until a date that no calendar has": _sends(b"too many", 429, Retry_After=_NEVER),
    "503 for ever": _sends(b"busy", 503, Retry_After="9" * 400),
    "503 with nonsense": _sends(b"busy", 503, Retry_After="soon"),
    "500": _sends(b"oh", 500),
    "reset": Fault(_resets),
    "aborted": _meta(finish_reason={"type": "abort", "message": "no"}),
}
"""What a server that is well may answer at times."""

LIES = {
    "never": _never(),
    "trickle": _flows(b" ", 0.05),
    "empty": _sends(),
    "html": _sends(b"<html><body>Welcome</body></html>"),
    "cut": _sends(b'{"meta_info": {"finish_reason": {"type": "st'),
    "no text": _sends(b"\xff\xfe\x00{"),
    "a GB, declared": _flows(b" " * _MIB, 0.0, Content_Length=str(10**9)),
    "a GB, in chunks": _flows(b" " * _MIB, 0.0),
    "compressed": _sends(b"\x1f\x8b", Content_Encoding="gzip"),
    "deep": _sends(b'{"meta_info": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "as deep as can be read": _sends(b'{"meta_info": ' + b"[" * 900 + b"]" * 900 + b"}"),
    "list": _says(lambda reply: [reply]),
    "null": _sends(b"null"),
    "redirect": _sends(status=307, Location="http://127.0.0.1:1/generate"),
    "no content": _sends(status=204),
    "meta_info is a list": _says(lambda reply: {"meta_info": [reply["meta_info"]]}),
    "no meta_info": _says(lambda reply: {}),
    "finish_reason is text": _meta(finish_reason="stop"),
    "finish_reason is unknown": _meta(finish_reason={"type": "bored"}),
    "finish_reason is null": _meta(finish_reason=None),
    "log-probability null": _row(None, 5),
    "log-probability NaN": _row(float("nan"), 5),
    "log-probability infinite": _row(float("-inf"), 5),
    "log-probability 3": _row(3.0, 5),
    "log-probability huge": _row(-(10**400), 5),
    "log-probability text": _row("-0.5", 5),
    "log-probability true": _row(True, 5),
    "short rows": _says(_short_rows),
    "too few log-probabilities": _says(_too_few),
    "token negative": _row(-0.5, -7),
    "token 10^12": _row(-0.5, 10**12),
    "token beyond the vocabulary": _row(-0.5, VOCABULARY),
    "token float": _row(-0.5, 5.0),
    "token true": _row(-0.5, True),
    "token text": _row(-0.5, "5"),
    "token a deep list": _sends(
        b'{"meta_info": {"finish_reason": {"type": "stop"}, "output_token_logprobs": [[-0.5, '
        + b"[" * 900 + b"]" * 900 + b"]]}}"
    ),
    "no tokens": _meta(output_token_logprobs=[]),
    "too many tokens": _meta(output_token_logprobs=[[-0.5, 5, None]] * 300),
    "tokens after a stop token": _row(-0.5, 2),
}  # fmt: skip
"""Answers to a request that cannot be right."""

STALE = {
    "stale weights": _says(_stale),
    "no version of weights": _says(lambda reply: reply["meta_info"].pop("weight_version") and None),
    "a number as version of weights": _meta(weight_version=1),
}
"""Answers that other weights gave."""

REFUSALS = {
    "418": _sends(b"a teapot", 418),
    "401": _sends(b"no", 401),
    "the key in a refusal": _sends(f"not with Bearer {KEY}".encode(), 400),
}
"""Answers that are final."""

STARTS = {
    "info never": _never("/server_info"),
    "info html": _sends(b"<html>", path="/server_info"),
    "info 500": _sends(b"oh", 500, path="/server_info"),
    "info a list": _says(lambda info: [info], "/server_info"),
    "no version": _says(lambda info: info.pop("version") and None, "/server_info"),
    "version a number": _says(lambda info: info.update(version=0.5), "/server_info"),
    "version endless": _says(lambda info: info.update(version="9" * 10_000), "/server_info"),
    "no context length": _says(lambda info: info.update(max_req_input_len=None), "/server_info"),
    "context length text": _says(lambda info: info.update(max_req_input_len="1000"), "/server_info"),
    "context length true": _says(lambda info: info.update(max_req_input_len=True), "/server_info"),
    "context length negative": _says(lambda info: info.update(max_req_input_len=-1), "/server_info"),
    "context length float": _says(lambda info: info.update(max_req_input_len=1e3), "/server_info"),
    "10^9 processes": _says(lambda info: info.update(tp_size=10**9), "/server_info"),
    "health never": _never("/health"),
    "health 500": _sends(b"ill", 500, path="/health"),
    "health 503 until a date that no calendar has": _sends(b"ill", 503, path="/health", Retry_After=_NEVER),
    "health redirect": _sends(status=302, path="/health", Location="http://127.0.0.1:1/"),
}
"""Answers to the first calls."""

UPDATES = {
    "update never": _never(_UPDATE),
    "update trickle": _flows(b" ", 0.05, _UPDATE),
    "update refused": _says(lambda answer: {"success": False, "message": "no room"}, _UPDATE),
    "update perhaps": _says(lambda answer: {"success": "false", "message": ""}, _UPDATE),
    "update empty": _sends(path=_UPDATE),
    "update that did nothing": _says(lambda answer: {"success": True, "message": ""}, _UPDATE),
    "update 503": _sends(b"busy", 503, path=_UPDATE),
    "pause never": _never("/pause_generation"),
    "flush never": _never("/flush_cache"),
    "flush refused": _sends(b"requests are under way", 400, path="/flush_cache"),
    "going on never": _never("/continue_generation"),
    "version never": _never("/model_info"),
    "version a list": _says(lambda info: info.update(weight_version=[info["weight_version"]]), "/model_info"),
}
"""Answers to the calls with which it is given weights."""

FAREWELLS = {"abort never": _never("/abort_request"), "abort trickle": _flows(b" ", 0.05, "/abort_request")}
"""Answers to the last calls."""

FAULTS = PASSING | LIES | STALE | REFUSALS | STARTS | UPDATES | FAREWELLS

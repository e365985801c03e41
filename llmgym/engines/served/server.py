"""`Server`: a server that is there already; `OwnServer`: one that is started here."""

import asyncio
import contextlib
import email.utils
import json
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from llmgym.addresses import fault_of_url, is_placeholder, without_key
from llmgym.config.choices import WeightTransfer
from llmgym.engines.served.dialect import (
    Call,
    Dialect,
    FaultyAnswerError,
    TransientError,
    UnknownCallError,
    WorkerLostError,
    refused,
    shown,
    succeeded,
)
from llmgym.engines.served.group import WeightsGroup
from llmgym.engines.served.limits import Limits
from llmgym.engines.served.log import ServerLog
from llmgym.engines.served.weights import Bucket, Weights
from llmgym.engines.served.worker import Worker
from llmgym.errors import ConfigError, EngineError

MAX_IN_FLIGHT = 4096
"""Requests that one server is sent at once; others wait here."""

_LOOK_EVERY = 0.5  # seconds
_BUSY = (408, 425, 429)  # the statuses below 500 of a server that may answer later


class Server(Worker):
    """A server, spoken to over HTTP. Weights go to it in a directory or over a process group.

    Args:
        dialect: How to speak to it.
        url: Where it is.
        key: Its API key, which has to be its admin key too if it has one; None if it wants none.
        patience: Seconds that it may take to answer when it is first asked, or asked again
            after it was lost: somebody else has to start it.
        transfer: How weights go to it.
        limits: What it may take.

    Raises:
        ConfigError: The URL is none, or has a password in it.
    """

    def __init__(
        self,
        dialect: Dialect,
        url: str,
        key: str | None = None,
        patience: float = 60.0,
        transfer: WeightTransfer = "directory",
        limits: Limits = Limits(),  # noqa: B008 - it never changes
    ) -> None:
        super().__init__(dialect, limits)
        if fault := fault_of_url(url):
            raise ConfigError(f"A server's URL: {fault}.")
        self.transfer = transfer
        self._group: WeightsGroup | None = None  # made when first needed
        self.name = f"the {dialect.name} server {url}"
        self._url, self._key, self._patience = url.rstrip("/"), key, patience
        self._secret = None if key is None or is_placeholder(key) else key
        self._session: aiohttp.ClientSession | None = None
        self._places = asyncio.Semaphore(MAX_IN_FLIGHT)

    async def start(self) -> None:
        """See `Worker`; also refuse one that cannot be given weights as it should.

        Raises:
            EngineError: See `Worker`, or it cannot join a group.
            WorkerLostError: See `Worker`.
        """
        await super().start()
        if self.transfer == "group" and self.facts.no_group:
            raise EngineError(f"{self.name} cannot join a group: {self.facts.no_group}.")

    async def launch(self) -> None:
        """Open connections, and wait until the server is healthy."""
        _raise_file_limit()
        self._session = aiohttp.ClientSession(
            # Shorter than the server's: a connection that it just closed would fail a request.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=60.0),
            # What is compressed has no bound.
            headers={"Accept-Encoding": "identity", **({"Authorization": f"Bearer {self._key}"} if self._key else {})},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        await self._wait_until_healthy()

    async def shut_down(self) -> None:
        """Leave the group, and close the connections."""
        await self._leave_group()
        session, self._session = self._session, None  # at once: nobody is to begin a call meanwhile
        if session is not None:
            await session.close()

    async def watch(self) -> str:
        """Ask for its health, now and then."""
        misses, illness = 0, None
        while misses < self.limits.health_misses:
            await asyncio.sleep(self.limits.health_every)
            illness = await self._illness(self.limits.health)
            misses = misses + 1 if illness else 0
        return f"it failed {misses} health checks in a row: {illness}"

    async def info(self) -> Mapping[str, Any]:
        """Return what the server says about itself."""
        return await self.dialect.info(self._within(self.limits.call))

    async def answer(self, rid: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the server."""
        async with self._places:  # what waits for a place has not begun to wait for an answer
            return await self.dialect.generate(self._within(self.limits.answer), rid, payload)

    def is_stale(self, reply: Mapping[str, Any], weights: Weights | None) -> bool:
        """Whether the server has other weights than it was given: it was started again, or somebody else gave some."""
        return weights is not None and self.dialect.tag(reply) != weights.tag

    async def abort(self, rids: Iterable[str]) -> None:
        """Drop requests; what cannot be told so in time is cut off anyway."""
        calls = (self.dialect.abort(self._within(self.limits.farewell), rid) for rid in rids)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), self.limits.farewell)

    async def load(self, weights: Weights) -> None:
        """Pause, flush the cache and check it, have the server take the weights, go on, check the version."""
        await self.until_lost(self._load(weights))

    async def _load(self, weights: Weights) -> None:
        take = (
            partial(self.dialect.read, self._within(self.limits.answer), weights.directory, weights.tag)
            if self.transfer == "directory"
            else partial(self._receive, list(weights.buckets()), weights.tag)
        )
        try:
            async with self.dialect.paused(self._within(self.limits.call)):
                await take()
            tag = await self.limits.patiently(partial(self.dialect.current_tag, self._within(self.limits.call)))
        except (TransientError, EngineError) as error:
            raise WorkerLostError(f"it does not take weights: {error}") from error
        succeeded(
            "the update", tag == weights.tag, f"expected it to have the weights {weights.tag!r}, it says {shown(tag)}"
        )

    async def _receive(self, buckets: Sequence[Bucket], tag: str) -> None:
        """Send weights to the server over a process group."""
        call = self._within(self.limits.answer)
        try:
            if self._group is None:
                address = await asyncio.to_thread(_address_towards, self._url)
                self._group = WeightsGroup(address, self.facts.processes, buckets[0][0][1].device)
                await asyncio.gather(self.dialect.join(call, self._group), self._group.join())
            async with self.dialect.update(call):
                for bucket in buckets:
                    receiving = self.dialect.receive(call, self._group, bucket, tag)
                    await asyncio.gather(receiving, self._group.send(bucket))
        except BaseException as error:
            await self._leave_group()
            if isinstance(error, RuntimeError | OSError) and not isinstance(error, EngineError):
                raise TransientError(f"the process group failed: {error}") from error
            raise

    async def _leave_group(self) -> None:
        group, self._group = self._group, None
        if group is not None:
            group.leave()
            with contextlib.suppress(Exception):  # whatever hinders it: the group is left
                await self.dialect.leave(self._within(self.limits.farewell), group)

    async def release_memory(self) -> None:
        """Release weights and cache."""
        await self.until_lost(self.dialect.release_memory(self._within(self.limits.answer)))

    async def resume_memory(self) -> None:
        """Take the memory again."""
        await self.until_lost(self.dialect.resume_memory(self._within(self.limits.answer)))

    def _within(self, seconds: float) -> Call:
        """Return what makes calls that may take so long."""
        return partial(self._call, seconds)

    async def _call(
        self, seconds: float, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Send one call and return the answer; what is no object of JSON is returned as a message."""
        if self._session is None:
            raise WorkerLostError("it was stopped")
        url, limit = self._url + path, asyncio.timeout(seconds)
        try:
            async with limit, self._session.request(method, url, json=body, allow_redirects=False) as response:
                content = await self._content(response)
        except aiohttp.ClientConnectorError as error:
            raise self._unreachable(error) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if limit.expired():
                raise FaultyAnswerError(f"Expected the answer to {path} within {seconds:g} s, got none.") from None
            raise await self._cut_off(error) from error
        text = content.decode("utf-8", "replace")
        if self._secret is not None and self._secret in text:
            text = without_key(text, self._secret)
        self._require_success(path, response, text)
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        return answer if isinstance(answer, dict) else {"message": text[:1000]}

    async def _content(self, response: aiohttp.ClientResponse) -> bytes:
        """Read an answer of a size that it may have."""
        size, most = response.content_length or 0, self.limits.answer_bytes
        pieces: list[bytes] = []
        if size <= most:
            size = 0
            async for piece in response.content.iter_any():
                pieces.append(piece)
                size += len(piece)
                if size > most:
                    break
        if size > most:
            raise FaultyAnswerError(f"Expected an answer of at most {most} bytes, got {size} or more.")
        return b"".join(pieces)

    def _require_success(self, path: str, response: aiohttp.ClientResponse, text: str) -> None:
        """Say what another status than 200 means."""
        status = response.status
        if status in (401, 403):
            raise EngineError(f"{self.name} wants another key: expected it in LLMGYM_ENGINE_KEY (status {status}).")
        if status == 404:
            raise UnknownCallError(f"{self.name} does not know {path}.")
        if status in _BUSY or status >= 500:
            raise TransientError(f"status {status}: {text[:200]!r}", _wished(response.headers.get("Retry-After")))
        if status >= 400:
            raise refused(self.name, f"{path}: {text[:400]!r} (status {status})")
        if status != 200:
            raise FaultyAnswerError(f"Expected status 200 of {path}, got {status}; it is not followed elsewhere.")

    def _ending(self) -> str | None:
        """How it ended; None if nobody knows that it did."""
        return None

    def _unreachable(self, error: Exception) -> Exception:
        """What it means that nobody listens."""
        return WorkerLostError(f"it cannot be reached: {error}")

    async def _cut_off(self, error: Exception) -> Exception:
        """What it means that a connection broke before its answer."""
        return TransientError(f"{type(error).__name__}: {error}")

    async def _illness(self, seconds: float) -> str | None:
        """Return what is wrong with its health; None if nothing is."""
        try:
            await self._call(seconds, "GET", self.dialect.health)
        except (TransientError, WorkerLostError, EngineError) as error:
            return str(error)
        return None

    async def _wait_until_healthy(self) -> None:
        until = time.monotonic() + self._patience
        while illness := await self._illness(min(self.limits.health, max(until - time.monotonic(), _LOOK_EVERY))):
            if (ending := self._ending()) is not None:
                raise WorkerLostError(ending)
            if time.monotonic() > until:
                raise WorkerLostError(f"it was not healthy within {self._patience:.0f} s: {illness}")
            await asyncio.sleep(_LOOK_EVERY)


class OwnServer(Server):
    """A server in a process group of its own, on the loopback interface, with a random key.

    Args:
        dialect: How to start it and to speak to it.
        model_path: The directory or hub name of the weights to start with.
        arguments: The server's own; see `Dialect.arguments`.
        number: Which server of ours it is.
        transfer: How weights go to it.
        patience: Seconds that it may take to start.
        limits: What it may take.

    Raises:
        EngineError: The server's program is not installed here, or too old.
    """

    def __init__(
        self,
        dialect: Dialect,
        model_path: str,
        arguments: Mapping[str, Any],
        number: int,
        transfer: WeightTransfer = "directory",
        patience: float = 1800.0,
        limits: Limits = Limits(),  # noqa: B008 - it never changes
    ) -> None:
        dialect.require_installed()
        super().__init__(dialect, "http://127.0.0.1", secrets.token_urlsafe(32), patience, transfer, limits)
        self.name = f"{dialect.name} server {number}"
        self._model_path, self._arguments = model_path, dict(arguments)
        self._log: ServerLog | None = None
        self._ended: str | None = None
        self._process: subprocess.Popen[bytes] | None = None

    async def launch(self) -> None:
        """Start the process, and wait until it is healthy."""
        port = _free_port()
        self._url = f"http://127.0.0.1:{port}"
        options = {"model_path": self._model_path, "arguments": self._arguments, "port": port, "key": self._key}
        dialect = f"{type(self.dialect).__module__}:{type(self.dialect).__qualname__}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "llmgym.engines.served.launch", dialect],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._ended, self._log = None, ServerLog(self._process.stdout, str(self._key), self.dialect.name)
        with contextlib.suppress(BrokenPipeError):  # then it has ended, which is noticed below
            self._process.stdin.write(json.dumps(options).encode() + b"\n")
            self._process.stdin.flush()
        await super().launch()

    async def shut_down(self) -> None:
        """End the process and all its children; its log stays if it had ended by itself."""
        await super().shut_down()
        if self._process is None:
            return
        if self._log is not None and self._process.poll() is None:
            self._log.remove()
        elif self._log is not None:
            self._log.keep()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process = self._log = None

    async def watch(self) -> str:
        """Look at the process, besides its health."""
        health = asyncio.ensure_future(super().watch())
        try:
            while not health.done() and (ending := self._ending()) is None:
                await asyncio.sleep(_LOOK_EVERY)
            return health.result() if health.done() else str(ending)
        finally:
            health.cancel()

    def _unreachable(self, error: Exception) -> Exception:
        """Lost if the process has ended; else it has too much to do to answer."""
        ending = self._ending()
        return TransientError(str(error)) if ending is None else WorkerLostError(ending)

    async def _cut_off(self, error: Exception) -> Exception:
        """Give `watch` the time to see whether the process has ended."""
        await asyncio.sleep(2 * _LOOK_EVERY)
        return self._unreachable(error)

    def _ending(self) -> str | None:
        assert self._process is not None
        assert self._log is not None
        if self._ended is None and (code := self._process.poll()) is not None:
            cause = next((f": {line.strip()}" for line in reversed(self._log.lines()) if "Error" in line), "")
            self._ended = f"its process ended with exit code {code}{cause:.300} (log: {self._log.path})"
        return self._ended


def _wished(header: str | None) -> float | None:
    """Return the seconds after which a server wants to be asked again, as ``Retry-After`` says it."""
    if header is None:
        return None
    if header.isdecimal():
        return float(header)
    try:
        when = email.utils.parsedate_to_datetime(header)
        return (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):  # a date that no calendar has
        return None


def _address_towards(url: str) -> str:
    """Return the address that this machine has on the way to a server. Nothing is sent."""
    parts = urlsplit(url)
    family, kind, _, _, there = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(there)
        return str(probe.getsockname()[0])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _raise_file_limit() -> None:
    """Allow as many open connections as requests; many systems start with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * MAX_IN_FLIGHT if hard == resource.RLIM_INFINITY else min(4 * MAX_IN_FLIGHT, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

"""`Server`: a server that is there already; `OwnServer`: one that is started here."""

import asyncio
import contextlib
import json
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from llmgym.config.choices import WeightTransfer
from llmgym.engines.served.dialect import (
    Dialect,
    TransientError,
    UnknownCallError,
    WorkerLostError,
    refused,
    succeeded,
)
from llmgym.engines.served.group import WeightsGroup
from llmgym.engines.served.weights import Bucket, Weights
from llmgym.engines.served.worker import Worker
from llmgym.errors import EngineError

MAX_IN_FLIGHT = 4096
"""Requests that one server is sent at once; others wait here."""

_LOOK_EVERY = 0.5  # seconds
_HEALTH_EVERY = 10.0  # seconds
_HEALTH_TIMEOUT = 30.0  # seconds; longer than servers try it themselves
_HEALTH_MISSES = 3  # in a row, and a server counts as lost
_FAREWELL_TIMEOUT = 5.0  # seconds


class Server(Worker):
    """A server, spoken to over HTTP. Weights go to it in a directory or over a process group.

    Args:
        dialect: How to speak to it.
        url: Where it is.
        key: Its API key, which has to be its admin key too if it has one; None if it wants none.
        patience: Seconds that it may take to answer when it is first asked, or asked again
            after it was lost: somebody else has to start it.
        transfer: How weights go to it.
    """

    def __init__(
        self,
        dialect: Dialect,
        url: str,
        key: str | None = None,
        patience: float = 60.0,
        transfer: WeightTransfer = "directory",
    ) -> None:
        super().__init__(dialect)
        self.transfer = transfer
        self._group: WeightsGroup | None = None  # made when first needed
        self.name = f"the {dialect.name} server {url}"
        self._url, self._key, self._patience = url.rstrip("/"), key, patience
        self._session: aiohttp.ClientSession | None = None

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
            connector=aiohttp.TCPConnector(limit=MAX_IN_FLIGHT, keepalive_timeout=2.0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=60.0),
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
        )
        await self._wait_until_healthy()

    async def shut_down(self) -> None:
        """Leave the group, and close the connections."""
        await self._leave_group()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def watch(self) -> str:
        """Ask for its health, now and then."""
        misses = 0
        while misses < _HEALTH_MISSES:
            await asyncio.sleep(_HEALTH_EVERY)
            misses = 0 if await self._is_healthy(_HEALTH_TIMEOUT) else misses + 1
        return f"it failed {misses} health checks in a row"

    async def info(self) -> Mapping[str, Any]:
        """Return what the server says about itself."""
        return await self.dialect.info(self._call)

    async def answer(self, rid: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the server."""
        return await self.dialect.generate(self._call, rid, payload)

    def is_stale(self, reply: Mapping[str, Any], weights: Weights | None) -> bool:
        """Whether the server has other weights than it was given: it was started again, or somebody else gave some."""
        return weights is not None and self.dialect.tag(reply) != weights.tag

    async def abort(self, rids: Iterable[str]) -> None:
        """Drop requests."""
        calls = (self.dialect.abort(self._call, rid) for rid in rids)
        await asyncio.gather(*calls, return_exceptions=True)  # what cannot be told so is cut off anyway

    async def load(self, weights: Weights) -> None:
        """Pause, flush the cache and check it, have the server take the weights, go on, check the version."""
        await self.until_lost(self._load(weights))

    async def _load(self, weights: Weights) -> None:
        take = (
            partial(self.dialect.read, self._call, weights.directory, weights.tag)
            if self.transfer == "directory"
            else partial(self._receive, list(weights.buckets()), weights.tag)
        )
        try:
            async with self.dialect.paused(self._call):
                await take()
            tag = await self.dialect.current_tag(self._call)
        except (TransientError, EngineError) as error:
            raise WorkerLostError(f"it does not take weights: {error}") from error
        succeeded("the update", tag == weights.tag, f"it says its weights are {tag!r}")

    async def _receive(self, buckets: Sequence[Bucket], tag: str) -> None:
        """Send weights to the server over a process group."""
        try:
            if self._group is None:
                address = await asyncio.to_thread(_address_towards, self._url)
                self._group = WeightsGroup(address, self.facts.processes, buckets[0][0][1].device)
                await asyncio.gather(self.dialect.join(self._call, self._group), self._group.join())
            async with self.dialect.update(self._call):
                for bucket in buckets:
                    receiving = self.dialect.receive(self._call, self._group, bucket, tag)
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
                await asyncio.wait_for(self.dialect.leave(self._call, group), _FAREWELL_TIMEOUT)

    async def release_memory(self) -> None:
        """Release weights and cache."""
        await self.until_lost(self.dialect.release_memory(self._call))

    async def resume_memory(self) -> None:
        """Take the memory again."""
        await self.until_lost(self.dialect.resume_memory(self._call))

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send one call and return the answer; what is not JSON is returned as a message."""
        if self._session is None:
            raise WorkerLostError("it was stopped")
        try:
            async with self._session.request(method, self._url + path, json=body) as response:
                text = await response.text(errors="replace")
                status = response.status
        except aiohttp.ClientConnectorError as error:
            raise self._unreachable(error) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise await self._cut_off(error) from error
        if status in (401, 403):
            raise EngineError(f"{self.name} wants another key: expected it in LLMGYM_ENGINE_KEY (status {status}).")
        if status == 404:
            raise UnknownCallError(f"{self.name} does not know {path}.")
        if 400 <= status < 500:
            raise refused(self.name, f"{path}: {text}")
        if status != 200:
            raise TransientError(f"status {status}: {text:.200}")
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        return answer if isinstance(answer, dict) else {"message": text}

    def _ending(self) -> str | None:
        """How it ended; None if nobody knows that it did."""
        return None

    def _unreachable(self, error: Exception) -> Exception:
        """What it means that nobody listens."""
        return WorkerLostError(f"it cannot be reached: {error}")

    async def _cut_off(self, error: Exception) -> Exception:
        """What it means that a connection broke before its answer."""
        return TransientError(f"{type(error).__name__}: {error}")

    async def _is_healthy(self, timeout: float) -> bool:
        try:
            await asyncio.wait_for(self._call("GET", self.dialect.health), timeout)
        except (TransientError, WorkerLostError, EngineError, TimeoutError):
            return False
        return True

    async def _wait_until_healthy(self) -> None:
        begun = time.monotonic()
        while not await self._is_healthy(_HEALTH_TIMEOUT):
            if (ending := self._ending()) is not None:
                raise WorkerLostError(ending)
            if time.monotonic() - begun > self._patience:
                raise WorkerLostError(f"it was not healthy within {self._patience:.0f} s")
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
    ) -> None:
        dialect.require_installed()
        super().__init__(dialect, "http://127.0.0.1", secrets.token_urlsafe(32), patience, transfer)
        self.name = f"{dialect.name} server {number}"
        self._model_path, self._arguments = model_path, dict(arguments)
        self._log = Path(tempfile.gettempdir()) / f"llmgym-{dialect.name.lower()}-{os.getpid()}-{number}.log"
        self._process: subprocess.Popen[str] | None = None

    async def launch(self) -> None:
        """Start the process, and wait until it is healthy."""
        port = _free_port()
        self._url = f"http://127.0.0.1:{port}"
        options = {"model_path": self._model_path, "arguments": self._arguments, "port": port, "key": self._key}
        dialect = f"{type(self.dialect).__module__}:{type(self.dialect).__qualname__}"
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "llmgym.engines.served.launch", dialect],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(options) + "\n")
        self._process.stdin.flush()
        await super().launch()

    async def shut_down(self) -> None:
        """End the process and all its children; its log stays if it had ended by itself."""
        await super().shut_down()
        if self._process is None:
            return
        if self._process.poll() is None:
            self._log.unlink(missing_ok=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process = None

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
        code = self._process.poll()
        if code is None:
            return None
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines() if self._log.exists() else []
        cause = next((f": {line.strip()}" for line in reversed(lines) if "Error" in line), "")
        return f"its process ended with exit code {code}{cause:.300} (log: {self._log})"


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

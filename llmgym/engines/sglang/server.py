"""`Server`: an SGLang server that is there already; `OwnServer`: one that is started here."""

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
from llmgym.engines.sglang.group import WeightsGroup
from llmgym.engines.sglang.versions import installed_version, require_version
from llmgym.engines.sglang.weights import Bucket, Weights
from llmgym.engines.sglang.wire import TransientError
from llmgym.engines.sglang.worker import UnknownCallError, Worker, WorkerLostError, refused, succeeded
from llmgym.errors import EngineError

MAX_IN_FLIGHT = 4096
"""Requests that one server is sent at once; others wait here."""

_LOOK_EVERY = 0.5  # seconds
_HEALTH_EVERY = 10.0  # seconds
_HEALTH_TIMEOUT = 30.0  # seconds; SGLang itself gives up after 20
_HEALTH_MISSES = 3  # in a row, and a server counts as lost
_FLUSH_TIMEOUT = 30.0  # seconds
_FAREWELL_TIMEOUT = 5.0  # seconds


class Server(Worker):
    """An SGLang server, spoken to over HTTP. Weights go to it in a directory or over a process group.

    Args:
        url: Where it is.
        key: Its API key, which has to be its admin key too if it has one; None if it wants none.
        patience: Seconds that it may take to answer when it is first asked, or asked again
            after it was lost: somebody else has to start it.
        transfer: How weights go to it.
    """

    def __init__(
        self, url: str, key: str | None = None, patience: float = 60.0, transfer: WeightTransfer = "directory"
    ) -> None:
        super().__init__()
        self.transfer = transfer
        self._processes = 1
        self._group: WeightsGroup | None = None  # made when first needed
        self.name = f"the SGLang server {url}"
        self._url, self._key, self._patience = url.rstrip("/"), key, patience
        self._session: aiohttp.ClientSession | None = None

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
        info = await self._call("GET", "/server_info")
        self._processes = int(info.get("tp_size") or 1)
        parallel = {name: int(info.get(name) or 1) for name in ("pp_size", "dp_size")}
        if self.transfer == "group" and max(parallel.values()) > 1:
            raise EngineError(f"{self.name} cannot join a group: expected pp_size and dp_size of 1, got {parallel}.")
        return info

    async def answer(self, rid: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the server."""
        return await self._call("POST", "/generate", {"rid": rid, **payload})

    def is_stale(self, reply: Mapping[str, Any], weights: Weights | None) -> bool:
        """Whether the server has other weights than it was given: it was started again, or somebody else gave some."""
        return weights is not None and reply["meta_info"].get("weight_version") != weights.tag

    async def abort(self, rids: Iterable[str]) -> None:
        """Drop requests."""
        calls = (self._call("POST", "/abort_request", {"rid": rid}) for rid in rids)
        await asyncio.gather(*calls, return_exceptions=True)  # what cannot be told so is cut off anyway

    async def load(self, weights: Weights) -> None:
        """Pause, flush the cache and check it, have the server take the weights, go on, check the version."""
        await self.until_lost(self._load(weights))

    async def _load(self, weights: Weights) -> None:
        take = (
            partial(self._read, weights.directory, weights.tag)
            if self.transfer == "directory"
            else partial(self._receive, list(weights.buckets()), weights.tag)
        )
        try:
            # "abort" leaves no request behind that would go on with the old cache.
            await self._call("POST", "/pause_generation", {"mode": "abort"})
            try:
                await self._call("POST", f"/flush_cache?timeout={_FLUSH_TIMEOUT}")  # any status but 200 is an error
                await take()
            finally:
                await self._call("POST", "/continue_generation", {})
            version = (await self._call("GET", "/model_info")).get("weight_version")
        except (TransientError, EngineError) as error:
            raise WorkerLostError(f"it does not take weights: {error}") from error
        succeeded("the update", version == weights.tag, f"it says its weights are {version!r}")

    async def _read(self, directory: Path, tag: str) -> None:
        """Have the server read weights from a directory."""
        await self._update("update_weights_from_disk", model_path=str(directory), weight_version=tag)

    async def _receive(self, buckets: Sequence[Bucket], tag: str) -> None:
        """Send weights to the server over a process group."""
        try:
            if self._group is None:
                address = await asyncio.to_thread(_address_towards, self._url)
                self._group = WeightsGroup(address, self._processes, buckets[0][0][1].device)
                await asyncio.gather(
                    self._update("init_weights_update_group", **self._group.invitation), self._group.join()
                )
                # An update that was broken off is still open there.
                with contextlib.suppress(EngineError, WorkerLostError):
                    await self._update("end_weight_update")
            has_sessions = True  # later versions want to know where an update begins and ends
            try:
                await self._update("begin_weight_update")
            except UnknownCallError:
                has_sessions = False
            for bucket in buckets:
                described = {**self._group.description(bucket), "weight_version": tag, "flush_cache": False}
                await asyncio.gather(
                    self._update("update_weights_from_distributed", **described), self._group.send(bucket)
                )
            if has_sessions:
                await self._update("end_weight_update")
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
                farewell = self._call("POST", "/destroy_weights_update_group", {"group_name": group.name})
                await asyncio.wait_for(farewell, _FAREWELL_TIMEOUT)

    async def _update(self, call: str, **arguments: Any) -> None:
        """Make one of the calls that say whether they succeeded."""
        answer = await self._call("POST", f"/{call}", arguments)
        succeeded(call, answer["success"], answer["message"])

    async def release_memory(self) -> None:
        """Release weights and cache."""
        await self.until_lost(self._call("POST", "/release_memory_occupation", {}))

    async def resume_memory(self) -> None:
        """Take the memory again."""
        await self.until_lost(self._call("POST", "/resume_memory_occupation", {}))

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send one call and return the answer; what is not JSON is returned as a message."""
        if self._session is None:
            raise WorkerLostError("it was stopped")
        try:
            async with self._session.request(method, self._url + path, json=body) as response:
                text = await response.text()
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

    def _unreachable(self, error: Exception) -> Exception:
        """What it means that nobody listens."""
        return WorkerLostError(f"it cannot be reached: {error}")

    async def _cut_off(self, error: Exception) -> Exception:
        """What it means that a connection broke before its answer."""
        return TransientError(f"{type(error).__name__}: {error}")

    async def _is_healthy(self, timeout: float) -> bool:
        try:
            await asyncio.wait_for(self._call("GET", "/health"), timeout)
        except (TransientError, WorkerLostError, EngineError, TimeoutError):
            return False
        return True

    async def _wait_until_healthy(self) -> None:
        begun = time.monotonic()
        while not await self._is_healthy(_HEALTH_TIMEOUT):
            if time.monotonic() - begun > self._patience:
                raise WorkerLostError(f"it was not healthy within {self._patience:.0f} s")
            await asyncio.sleep(_LOOK_EVERY)


class OwnServer(Server):
    """An SGLang server in a process group of its own, on the loopback interface, with a random key.

    Args:
        model_path: The directory or hub name of the weights to start with.
        options: Arguments of SGLang's server.
        number: Which server of ours it is.
        transfer: How weights go to it.

    Raises:
        EngineError: SGLang is not installed, or too old.
    """

    def __init__(
        self, model_path: str, options: Mapping[str, Any], number: int, transfer: WeightTransfer = "directory"
    ) -> None:
        require_version(installed_version(), "in this environment")
        super().__init__("http://127.0.0.1", secrets.token_urlsafe(32), transfer=transfer)
        self.name = f"SGLang server {number}"
        self._options = {"model_path": model_path, "log_level": "error", "host": "127.0.0.1", **options}
        self._log = Path(tempfile.gettempdir()) / f"llmgym-sglang-{os.getpid()}-{number}.log"
        self._process: subprocess.Popen[str] | None = None

    async def launch(self) -> None:
        """Start the process, and wait until it is healthy, however long it takes to load."""
        port = _free_port()
        self._url = f"http://127.0.0.1:{port}"
        keys = {"api_key": self._key, "admin_api_key": self._key}
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "llmgym.engines.sglang.launch"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**self._options, **keys, "port": port}) + "\n")
        self._process.stdin.flush()
        await super().launch()

    async def shut_down(self) -> None:
        """End the process and all its children; its log stays if it had ended by itself."""
        await super().shut_down()
        if self._process is None:
            return
        if self._runs():
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
            while not health.done() and self._runs():
                await asyncio.sleep(_LOOK_EVERY)
            return health.result() if health.done() else self._ending()
        finally:
            health.cancel()

    def _unreachable(self, error: Exception) -> Exception:
        """Lost if the process has ended; else it has too much to do to answer."""
        return TransientError(str(error)) if self._runs() else WorkerLostError(self._ending())

    async def _cut_off(self, error: Exception) -> Exception:
        """Give `watch` the time to see whether the process has ended."""
        await asyncio.sleep(2 * _LOOK_EVERY)
        return self._unreachable(error)

    async def _wait_until_healthy(self) -> None:
        while not await self._is_healthy(_HEALTH_TIMEOUT):
            if not self._runs():
                raise WorkerLostError(self._ending())
            await asyncio.sleep(_LOOK_EVERY)

    def _runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _ending(self) -> str:
        code = self._process.returncode if self._process is not None else None
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

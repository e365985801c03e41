"""`FakeServer`: a small HTTP server that takes SGLang's calls, for tests of the code around a server."""

import asyncio
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from aiohttp import web
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed import Backend, BroadcastOptions, destroy_process_group
from torch.distributed.distributed_c10d import PrefixStore, _new_process_group_helper, _world, rendezvous

KEY = "secret-of-a-test"


class FakeServer:
    """Takes SGLang's calls and answers every prompt with its own length, three times.

    Attributes:
        calls: The paths that were asked, in order, without /health.
        hold: Requests that have to be under way before any is answered.
        keeps_holding: Whether that goes for those after them, too.
        gave_up: Whether it was told to answer whatever there is.
        weight_version: What it says its weights are.
        weights: What was in the directory that it last read.
        refusals: How often it will refuse weights over a group.
        has_sessions: Whether an update has to be begun and ended.
        odd: Answers to the next requests, instead of the usual one.
    """

    def __init__(self, version: str = "0.5.21") -> None:
        self.version, self.weight_version = version, "default"
        self.calls: list[str] = []
        self.prompts: list[list[int]] = []
        self.weights: dict[str, Tensor] = {}
        self.full = asyncio.Event()
        self._hold = 0
        self.keeps_holding = self.gave_up = False
        self.under_way = self.most_under_way = 0
        self.odd: list[tuple[int, dict[str, Any]]] = []
        self.flushes = True
        self.refusals = 0
        self.has_sessions, self.in_session = True, False
        self.group: Any = None
        self.loop = asyncio.new_event_loop()
        self.port = 0
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def hold(self) -> int:
        return self._hold

    @hold.setter
    def hold(self, requests: int) -> None:
        self._hold, self.most_under_way = requests, 0
        self.full.clear()

    def give_up(self) -> None:
        """Answer all from now on. Called in the server's loop."""
        self.gave_up = True
        self.full.set()

    def start(self) -> None:
        self._run(self._start())

    def stop(self) -> None:
        """Break all connections and listen no more, as a process that is killed."""
        self._run(self._stop())

    def close(self) -> None:
        self.stop()
        self._run(self._cancel_answers())
        self.loop.call_soon_threadsafe(self.loop.stop)

    def _run(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    async def _start(self) -> None:
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self.runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", self.port, backlog=4096)
        await site.start()
        self.port = self.runner.addresses[0][1]

    async def _stop(self) -> None:
        for connection in list(self.runner.server.connections if self.runner.server else []):
            if connection.transport is not None:
                connection.transport.abort()
        await self.runner.cleanup()

    async def _cancel_answers(self) -> None:
        held = asyncio.all_tasks() - {asyncio.current_task()}
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)

    async def _answer(self, request: web.Request) -> web.Response:
        if request.path == "/health":
            return web.Response()
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.Response(status=401)
        self.calls.append(request.path)
        body = await request.json() if request.method == "POST" and request.can_read_body else {}
        answer: dict[str, Any] = {}
        if request.path == "/server_info":
            answer = {"version": self.version, "max_req_input_len": 1000}
        elif request.path == "/model_info":
            answer = {"weight_version": self.weight_version}
        elif request.path == "/flush_cache":
            return web.Response(text="Cache flushed.", status=200 if self.flushes else 400)
        elif request.path == "/update_weights_from_disk":
            (file,) = Path(body["model_path"]).iterdir()
            assert file.name == "model.safetensors"
            self.weights = load_file(file)
            self.weight_version = body["weight_version"]
            answer = {"success": True, "message": ""}
        elif request.path == "/init_weights_update_group":
            await asyncio.to_thread(self._join, body)
            answer = {"success": True, "message": ""}
        elif request.path == "/update_weights_from_distributed":
            assert self.in_session or not self.has_sessions
            if self.refusals:
                self.refusals -= 1
                return web.json_response({"success": False, "message": "no"}, status=400)
            await asyncio.to_thread(self._receive, body)
            self.weight_version = body["weight_version"]
            answer = {"success": True, "message": ""}
        elif request.path in ("/begin_weight_update", "/end_weight_update"):
            begins = request.path.startswith("/begin")
            if not self.has_sessions:
                return web.Response(status=404)
            if begins == self.in_session:
                return web.json_response({"success": False, "message": "a session is, or none is"}, status=400)
            self.in_session = begins
            answer = {"success": True, "message": ""}
        elif request.path == "/destroy_weights_update_group":
            destroy_process_group(self.group)
            self.group = None
            answer = {"success": True, "message": ""}
        elif request.path == "/generate":
            return await self._generate(body)
        return web.json_response(answer)

    def _join(self, body: dict[str, Any]) -> None:
        """Join a group as SGLang does: by torch's way to make groups."""
        address = f"tcp://{body['master_address']}:{body['master_port']}"
        patience = timedelta(seconds=20)
        store, rank, size = next(rendezvous(address, body["rank_offset"], body["world_size"], timeout=patience))
        name, backend = body["group_name"], Backend(body["backend"])
        self.group, _ = _new_process_group_helper(
            size, rank, [], backend, PrefixStore(name, store), group_name=name, timeout=patience
        )
        _world.pg_group_ranks[self.group] = {member: member for member in range(size)}

    def _receive(self, body: dict[str, Any]) -> None:
        """Take the tensors that were announced."""
        for name, dtype, shape in zip(body["names"], body["dtypes"], body["shapes"], strict=True):
            tensor = torch.empty(shape, dtype=getattr(torch, dtype))
            self.group.broadcast([tensor], BroadcastOptions()).wait()
            self.weights[name] = tensor

    async def _generate(self, body: dict[str, Any]) -> web.Response:
        self.prompts.append(body["input_ids"])
        if self.odd:
            status, odd = self.odd.pop(0)
            return web.json_response(odd, status=status)
        version = self.weight_version
        self.under_way += 1
        self.most_under_way = max(self.under_way, self.most_under_way)
        full = self.full
        if self.most_under_way >= self.hold:
            full.set()
        if full.is_set() and self.keeps_holding and not self.gave_up:
            self.full, self.most_under_way = asyncio.Event(), 0
        await full.wait()
        self.under_way -= 1
        sampled = [[-0.5, len(body["input_ids"]), None]] * 3
        meta = {"finish_reason": {"type": "stop"}, "output_token_logprobs": sampled, "weight_version": version}
        return web.json_response({"meta_info": meta})

"""`WeightsGroup`: a process group of the learner and one server, over which weights travel."""

import asyncio
import secrets
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist

from llmgym.engines.served.weights import Bucket

_c10d: Any = dist  # its types leave out what it exports from C++

_PATIENCE = timedelta(minutes=1)  # for the server to join, and for every tensor
_NCCL_PATIENCE = timedelta(minutes=30)  # after it torch ends the process: a server is noticed to be lost long before


class WeightsGroup:
    """The learner is rank 0 and sends; the processes of the server follow it and receive.

    NCCL carries weights that are on a GPU, which has to be another one than the server's; Gloo
    carries others. The group is no part of PyTorch's default one, which stays the learner's own.

    Args:
        address: Of this machine, as the server reaches it; nothing listens on another.
        members: Processes of the server.
        device: Where the weights are.

    Attributes:
        name: Under which torch's own groups, as the server makes one, meet in the store.
        address: Where the store is.
        port: See `address`.
        size: Of the group, the learner included.
        backend: Torch's name of what carries the tensors.
    """

    def __init__(self, address: str, members: int, device: torch.device) -> None:
        self.name = f"llmgym-{secrets.token_hex(8)}"
        self.address, self.size, self._device = address, 1 + members, device
        self.backend: Literal["nccl", "gloo"] = "nccl" if device.type == "cuda" else "gloo"
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.create_server((address, 0), family=family) as listener:
            port, descriptor = listener.getsockname()[1], listener.detach()
        self._store = _c10d.TCPStore(
            address, port, self.size, True, _PATIENCE, wait_for_workers=False, master_listen_fd=descriptor
        )
        self._group: Any = None

    @property
    def port(self) -> int:
        """See the class."""
        return int(self._store.port)

    async def join(self) -> None:
        """Wait until the server has joined."""
        await _in_a_thread(self._join)

    async def send(self, bucket: Bucket) -> None:
        """Send tensors, and wait until they have been read.

        Raises:
            RuntimeError: The server is gone.
        """
        await _in_a_thread(lambda: self._send(bucket))

    def leave(self) -> None:
        """Break off what is under way: NCCL stops at once, Gloo when the server has left, too, or time is up."""
        group, self._group = self._group, None
        if group is not None:
            group.abort()

    def _join(self) -> None:
        store = self._store
        # The names under which torch's own groups, of which the server's is one, meet in a store.
        for prefix in (self.name, f"{self.name}/", f"{self._device.type}/"):
            store = _c10d.PrefixStore(prefix, store)
        if self._device.type == "cuda":
            options = _c10d.ProcessGroupNCCL.Options()
            options._timeout = _NCCL_PATIENCE
            with torch.cuda.device(self._device):
                self._group = _c10d.ProcessGroupNCCL(store, 0, self.size, options)
        else:
            self._group = _c10d.ProcessGroupGloo(store, 0, self.size, _PATIENCE)

    def _send(self, bucket: Bucket) -> None:
        group, options = self._group, dist.BroadcastOptions()  # held here: its end waits for what is under way
        for work in [group.broadcast([tensor.contiguous()], options) for _, tensor in bucket]:
            work.wait()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


async def _in_a_thread(function: Callable[[], None]) -> None:
    """Run what blocks in a thread that nobody has to wait for: not the program's end either."""
    done: Future[None] = Future()
    done.set_running_or_notify_cancel()  # from now on nobody can cancel it, only no longer wait

    def run() -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=run, name="weights", daemon=True).start()
    await asyncio.wrap_future(done)

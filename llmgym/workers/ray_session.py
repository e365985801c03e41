"""`RaySession`: a local Ray that only this machine can reach and that leaves nothing behind, or a cluster that runs."""

import contextlib
import functools
import logging
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from llmgym.errors import ConfigError, import_extra
from llmgym.workers import ray_cleaner

_SETTINGS = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # what Ray starts listens on the loopback interface alone
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # what is asked of Ray after its end starts no other one
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else a warning at every start
    "RAY_SCHEDULER_EVENTS": "0",  # else what Ray's own scheduler says of waiting
}
_KNOCK = 10.0  # seconds in which somebody has to listen at an address; Ray itself tries for half a minute
_prepared = False
_LONGEST_PARENT = 20  # bytes: with what Ray adds, the path of a socket has at most 107
_FAREWELL = 20.0  # seconds until the cleaner is not waited for any more


def prepare_local() -> None:
    """Import Ray with the settings of a local Ray; it reads some of them once, when it is imported.

    TorchRL imports it too, so this comes before. Where Ray is imported already, a local one asks for no token.

    Raises:
        ConfigError: Ray is not installed.
    """
    global _prepared
    if "ray" not in sys.modules:
        os.environ.update({name: value for name, value in _SETTINGS.items() if name not in os.environ})
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        _prepared = True
    import_extra("ray", "ray")


def _keep_local() -> None:
    """See to it that what Ray starts can be reached from this machine alone, also where Ray was imported before."""
    if not _prepared:
        os.environ.update(_SETTINGS | {"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "disabled")})
        import_extra("ray._private.ray_constants", "ray").ENABLE_RAY_CLUSTER = False  # type: ignore[attr-defined]
        if os.environ["RAY_AUTH_MODE"] == "disabled":
            warnings.warn(
                "Ray was imported before llmgym could have it ask for a token: other users of this machine can reach "
                "it while the run lasts. Let llmgym import ray and torchrl, or set RAY_AUTH_MODE and RAY_AUTH_TOKEN.",
                stacklevel=2,
            )


class RaySession:
    """A connection to Ray, made anew unless the process has one already.

    A local Ray listens on the loopback interface alone, asks for a token that nobody else has, sends no statistics, and
    writes to a temporary directory. A cleaner, which is a process of its own, ends what is left of it and deletes the
    directory once this process has closed the session or is dead.

    Args:
        address: Of a cluster that runs; None for a local Ray.
        cpus: Processor cores that a local Ray shares out.
        uses_gpus: Whether it shares out GPUs.
        store_bytes: What its object store holds.

    Raises:
        ConfigError: Ray is not installed, or cannot be reached or started.

    Attributes:
        ray: The module.
        ours: Whether this session has connected to Ray, and leaves it.
    """

    def __init__(self, address: str | None, *, cpus: int, uses_gpus: bool, store_bytes: int) -> None:
        self.ours = False
        self._directory: Path | None = None
        self._cleaner: subprocess.Popen[bytes] | None = None
        self.ray: ModuleType = import_extra("ray", "ray")
        if self.ray.is_initialized():
            return
        self.ours = True
        os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # what a worker raises is told, and told once
        try:
            with _without_signal_handler():
                if address is None:
                    self._start(cpus, uses_gpus, store_bytes)
                else:
                    self._join(address)
        except Exception as error:
            self.close()
            where = (
                "a local Ray cannot be started"
                if address is None
                else f"ray_address: {address!r} cannot be reached: expected a Ray that runs there, and the "
                "RAY_AUTH_MODE and token that it was started with"
            )
            raise ConfigError(f"{where} ({type(error).__name__}: {str(error)[:1000]})") from error
        except BaseException:  # a signal
            self.close()
            raise

    def require(self, cpus: float, gpus: float) -> None:
        """Refuse to wait for what a cluster does not have.

        Raises:
            ConfigError: It has not so many processor cores or GPUs in all.
        """
        have: dict[str, float] = self.ray.cluster_resources()
        for what, wanted in (("CPU", cpus), ("GPU", gpus)):
            if have.get(what, 0) < wanted:
                raise ConfigError(
                    f"rollout_workers: they take {wanted:g} {what}s in all, and Ray has {have.get(what, 0):g}; "
                    "expected fewer workers, or fewer of worker_cpus and worker_gpus."
                )

    def close(self) -> None:
        """Leave the cluster, or end the local Ray and wait until nothing of it is left."""
        if self.ours:
            self.ray.shutdown()
            self.ours = False
        if self._cleaner is not None and self._cleaner.stdin is not None:
            self._cleaner.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):  # it goes on by itself
                self._cleaner.wait(_FAREWELL)
            self._cleaner = None

    def _join(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        if host and port.isdecimal():
            socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK).close()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO")
            self.ray.init(address=address, **_quiet())

    def _start(self, cpus: int, uses_gpus: bool, store_bytes: int) -> None:
        _keep_local()
        parent = tempfile.gettempdir()
        parent = parent if len(os.fsencode(parent)) <= _LONGEST_PARENT else "/tmp"
        self._directory = Path(tempfile.mkdtemp(prefix="llmgym-ray-", dir=parent))
        self._cleaner = subprocess.Popen(
            [sys.executable, "-S", ray_cleaner.__file__, str(self._directory), str(os.getpid())],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is not for it
        )
        gpus: dict[str, int] = {} if uses_gpus else {"num_gpus": 0}
        with _in_a_session_of_their_own():
            self.ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=store_bytes,
                _temp_dir=str(self._directory),
                _system_config={"prestart_worker_first_driver": False},
                **gpus,
                **_quiet(),
            )


@contextlib.contextmanager
def _without_signal_handler() -> Iterator[None]:
    """Keep Ray from answering SIGTERM by itself while it starts: the run does, with a sentence and its exit code."""
    utils: Any = import_extra("ray._private.utils", "ray")
    set_handler, utils.set_sigterm_handler = utils.set_sigterm_handler, lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = set_handler


@contextlib.contextmanager
def _in_a_session_of_their_own() -> Iterator[None]:
    """Start the processes of Ray in a session of their own.

    A signal that a process group is sent, such as SIGTERM, asks the run to end; it needs Ray until it has saved.
    """
    services: Any = import_extra("ray._private.services", "ray")
    start = services.ConsolePopen
    services.ConsolePopen = functools.partial(start, start_new_session=True)
    try:
        yield
    finally:
        services.ConsolePopen = start


def _quiet() -> dict[str, Any]:
    return {"logging_level": logging.ERROR, "log_to_driver": False}

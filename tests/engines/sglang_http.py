"""A real SGLang server with its HTTP API, on a CPU."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen


@contextlib.contextmanager
def sglang_server(model: Path, arguments: dict[str, Any]) -> Iterator[str]:
    """Start SGLang's own server, and return its URL once it is healthy."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [f"--{key.replace('_', '-')}" + ("" if value is True else f"={value}") for key, value in arguments.items()]
    command = [sys.executable, "-m", "sglang.launch_server", f"--model-path={model}", f"--port={port}", *flags]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        until = time.monotonic() + 300
        while not _healthy(port):
            assert process.poll() is None, "it has ended"
            assert time.monotonic() < until, "it does not start"
            time.sleep(1.0)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _healthy(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False

"""A judge that a real SGLang serves, on a CPU: `make test-sglang`."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from llmgym import Episode, Score
from llmgym.demo import TINY_TOOLS_PATH
from llmgym.envs.waiting import settled
from llmgym.scorers import ask
from llmgym.scorers.judges.settings import from_file
from llmgym.types import Turn

pytest.importorskip("sglang")
CPU = pytest.importorskip("cpu_options").CPU

PROMPT = "You hold {reply}. Reply with check or bet."


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Start SGLang's own server, with its OpenAI-compatible API."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [f"--{key.replace('_', '-')}" + ("" if value is True else f"={value}") for key, value in CPU.items()]
    command = [
        sys.executable,
        "-m",
        "sglang.launch_server",
        f"--model-path={TINY_TOOLS_PATH}",
        f"--port={port}",
        *flags,
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        until = time.monotonic() + 300
        while not healthy(port):
            assert process.poll() is None, "it has ended"
            assert time.monotonic() < until, "it does not start"
            time.sleep(1.0)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def healthy(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def test_it_says_what_the_embedded_engine_says_of_the_same_weights(url: str, tmp_path: Path) -> None:
    said = [f"{card}{' ' * spaces}" for card in "JQK" for spaces in range(4)] + ["nothing", ""]
    episodes = [Episode(turns=[Turn("Your card?", one)]) for one in said]
    scores: list[list[Score]] = []
    for model in (f"endpoint: {url}\nmodel: tiny-tools\n", f"model: {TINY_TOOLS_PATH}\n"):
        file = tmp_path / "judge.yaml"
        file.write_text(
            f"{model}prompt: '{PROMPT}'\nread: choice\nchoices: {{check: 0.0, bet: 1.0}}\nmax_tokens: 12\n"
            f"cache: {tmp_path / 'judge.sqlite'}\n"
        )
        scores.append(settled(ask(from_file(str(file)), episodes, [0] * len(episodes))))
        again: list[Score] = settled(ask(from_file(str(file)), episodes, [0] * len(episodes)))
        assert [one.value for one in again] == [one.value for one in scores[-1]], "the cache gives the same run twice"
        assert {one.parts["judge/calls"] for one in again if one.value is not None} == {0.0}
    served, here = scores
    assert {one.value for one in served} & {0.0, 1.0}
    assert all(one.error for one in served if one.value is None)
    assert [one.value for one in served] == [one.value for one in here]
    assert sum(one.parts["judge/tokens"] for one in served) == sum(one.parts["judge/tokens"] for one in here)

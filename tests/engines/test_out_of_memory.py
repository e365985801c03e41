"""Where the embedded engine finds no memory, it goes on with fewer episodes at once, and then says so.

Each test bounds the memory of a process of its own, so that real allocations fail.
"""

import json
import resource
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from llmgym.config.presets import directory_of
from llmgym.config.sections import Sampling
from llmgym.engines.base import GenerationRequest, complete
from llmgym.engines.local.engine import LocalEngine
from llmgym.errors import EngineError
from llmgym.models.causal_lm import load_causal_lm

EPISODES = 64


def played(engine: LocalEngine) -> list[list[int]]:
    sampling = Sampling(max_tokens=120)
    requests = [
        GenerationRequest(i, i, [5 + i % 200] * 300, sampling.max_tokens, (2,), sampling, seed=i)
        for i in range(EPISODES)
    ]
    return [reply.tokens for reply in complete(engine, requests)]


def main(spare: float) -> dict[str, Any]:
    """Play with memory to spare, and with so many MiB more than are held when it begins."""
    torch.set_num_threads(1)
    model, _ = load_causal_lm(directory_of("tiny"), torch.float32)
    whole = played(LocalEngine(model, context_length=600))
    engine = LocalEngine(model, context_length=600)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + int(spare * 2**20),) * 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            same = played(engine) == whole
        except EngineError as error:
            return {"error": str(error)}
    return {"same": same, "warnings": [str(one.message) for one in caught]}


def bounded(spare: float) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, __file__, str(spare)], check=False, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="bounds memory and reads /proc as Linux does")
def test_a_smaller_batch_samples_the_same_tokens() -> None:
    tried = (bounded(spare) for spare in (100, 70, 50, 40, 30, 20))  # what an allocator holds already differs
    found = next(one for one in tried if one.get("warnings"))
    assert found["same"]
    (warning,) = found["warnings"]
    assert "The embedded engine ran out of memory with" in warning
    assert "It goes on with at most" in warning


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="bounds memory and reads /proc as Linux does")
def test_where_that_does_not_help_a_sentence_says_what_does() -> None:
    error = bounded(12)["error"]
    assert "The embedded engine has no memory for" in error
    assert "Lower kv_cache_gib, context_length or the number of episodes per step" in error


if __name__ == "__main__":
    print(json.dumps(main(float(sys.argv[1]))))  # noqa: T201  # what the test reads

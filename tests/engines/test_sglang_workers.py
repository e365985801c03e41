"""SGLang under rollout workers: one that is killed is started again, and no episode is lost."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytest.importorskip("sglang", reason="SGLang is not installed here: make test-sglang")
pytest.importorskip("sgl_kernel", reason="SGLang has no kernels here: make test-sglang")
pytest.importorskip("ray")

from cpu_options import CPU
from left_behind import processes_of

from llmgym.data.trajectories import read_trajectories

KILLS, STEPS = 10, 60

pytestmark = pytest.mark.skipif(
    int(os.environ.get("LLMGYM_CHAOS_KILLS", "0")) < 50, reason="takes minutes: LLMGYM_CHAOS_KILLS=100 make test-sglang"
)


def engine_processes(temporary: str) -> list[int]:
    """Return the processes of SGLang, those included that have not given themselves their name yet."""
    return processes_of(temporary, "sglang::") + processes_of(temporary, "multiprocessing.spawn")


def test_engines_that_are_killed_under_workers_lose_no_episode(tmp_path: Path) -> None:
    played = f"--env AIOpsTriage --prompts-per-step 2 --group-size 4 --max-tokens 48 --steps {STEPS} --eval-episodes 0"
    words = f"{played} --sample-every 0 --engine sglang --rollout-workers 1 --output-dir {tmp_path / 'runs'}".split()
    words += ["--engine-restarts", str(KILLS), "--engine-kwargs"]
    words += [f"{name}={json.dumps(value)}" for name, value in CPU.items()]
    chance, killed = random.Random(0), 0
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as temporary:
        process = subprocess.Popen(
            [sys.executable, "-m", "llmgym.agents.grpo", *words],
            env={**os.environ, "TMPDIR": temporary, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        while process.poll() is None and killed < KILLS:
            time.sleep(chance.uniform(0.5, 20.0))  # while it plays, and while it starts again
            begun = any(one.stat().st_size for one in tmp_path.glob("runs/*/metrics.jsonl"))
            if begun and (found := engine_processes(temporary)):
                os.kill(chance.choice(found), signal.SIGKILL)
                killed += 1
        said, _ = process.communicate(timeout=900)
        assert process.returncode == 0, said
        assert engine_processes(temporary) == []
    assert killed == KILLS
    (run,) = tmp_path.glob("runs/*/")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    for step in range(1, STEPS + 1):
        shard = read_trajectories(run / "trajectories" / f"step-{step:05d}.parquet")
        assert len(shard) == 8
        assert {reply.weight_version for episode in shard for reply in episode.replies} == {step - 1}

"""Several ranks learn what one process learns, whatever shares of a batch fall to them."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from forked_runs import Runs, without_times
from safetensors.torch import load_file

from llmgym.train.checkpoints import checkpoints_of

pytestmark = pytest.mark.slow

COMMON = "--max-tokens 40 --sample-every 0 --steps 2 --save-every 0 --learning-rate 1e-5 --learning-rate-decay none"
PLAYED = f"{COMMON} --prompts-per-step 4 --group-size 4 --eval-episodes 0"
SMALL, WHOLE = "--micro-batch-tokens 200", "--micro-batch-tokens 100000"  # the latter leaves one rank without a share
RUNS = {
    "grpo": f"grpo {PLAYED} {SMALL} --measure-kl always --mismatch-correction truncate",
    "grpo, a rank without a share": f"grpo {PLAYED} {WHOLE} --updates-per-step 1",
    "ppo": f"ppo {PLAYED} {SMALL} --kl-coef 0.05 --kl-target 0.01 --kl-in reward --critic own",
    "opo": f"opo {PLAYED} {SMALL} --reference-every 1 --epochs 2",
    "sft": f"sft {COMMON} {SMALL} --examples 24 --batch-size 8 --eval-episodes 0",
    "lora": f"grpo {PLAYED} {SMALL} --lora-rank 4",
}


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    found = Runs()
    yield found
    found.close()


def learnt(runs: Runs, kind: str, ranks: int, output: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """Return the state and the metrics of a run."""
    log = f"{output}.log"
    status = runs.end(runs.begin(f"{RUNS[kind]} --output-dir {output}", log, ranks=ranks))
    assert status == 0, Path(log).read_text()[-3000:]
    (run,) = (one for one in output.iterdir() if one.is_dir())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return load_file(run / "checkpoint" / "state" / "state.safetensors"), without_times(rows)


@pytest.mark.parametrize(
    ("kind", "counts"), [(kind, (2, 4) if kind == "grpo" else (2,)) for kind in RUNS], ids=list(RUNS)
)
def test_ranks_learn_what_one_process_does(kind: str, counts: tuple[int, ...], runs: Runs, tmp_path: Path) -> None:
    expected, rows = learnt(runs, kind, 1, tmp_path / "1")
    for count in counts:
        state, found = learnt(runs, kind, count, tmp_path / str(count))
        assert state.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.allclose(state[name].double(), tensor.double(), rtol=0, atol=1e-6), name
        for row, other in zip(rows, found, strict=True):
            assert row.keys() == other.keys()
            for name, value in row.items():
                assert math.isclose(value or 0.0, other[name] or 0.0, rel_tol=1e-3, abs_tol=1e-5), name


def ranks_of(launcher: int) -> list[int]:
    """Return the processes that a launcher has started."""
    return [int(one) for one in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]


def torchrun(output: Path, steps: int, *words: str, ranks: int = 2) -> subprocess.Popen[str]:
    """Begin a run as a user does."""
    torch_run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = f"-m llmgym.agents.grpo --env AIOpsTriage {PLAYED} {SMALL} --output-dir {output} --resume"
    return subprocess.Popen(
        [*torch_run, *command.replace("--steps 2 --save-every 0", f"--steps {steps} --save-every 1").split(), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


HOWS = ["asked to end", "one is killed"] if int(os.environ.get("LLMGYM_CHAOS_KILLS", "0")) >= 50 else ["asked to end"]


@pytest.mark.parametrize("how", HOWS)
def test_ranks_that_are_asked_to_end_save_and_another_number_goes_on(how: str, tmp_path: Path) -> None:
    process = torchrun(tmp_path / "runs", 10**6)
    until = time.monotonic() + 200
    while not list(tmp_path.glob("runs/*/metrics.jsonl")) and time.monotonic() < until and process.poll() is None:
        time.sleep(0.1)
    if how == "asked to end":
        process.send_signal(signal.SIGTERM)
    else:
        os.kill(max(ranks_of(process.pid)), signal.SIGKILL)
    said, _ = process.communicate(timeout=100)
    (run,) = (tmp_path / "runs").iterdir()
    taken = max(one.step for one in checkpoints_of(run) if one.fault() is None)
    assert how == "one is killed" or taken == len((run / "metrics.jsonl").read_text().splitlines())
    assert said.count("Run directory:") == 1  # one rank speaks
    again = torchrun(tmp_path / "runs", taken + 1, ranks=1)
    said, _ = again.communicate(timeout=200)
    assert again.returncode == 0, said
    assert f"Going on from step {taken}" in " ".join(said.split())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, taken + 2))


def test_the_first_rank_may_have_rollout_workers(tmp_path: Path) -> None:
    process = torchrun(tmp_path / "runs", 2, "--rollout-workers", "1")
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert said.count("1 rollout worker on Ray") == 1


def test_an_error_in_the_update_of_the_first_rank_ends_all(runs: Runs, tmp_path: Path) -> None:
    """Its share of an update fails while the other rank waits for its gradients."""
    when = {"function": "llmgym.learn.ranks:total", "call": 1, "raises": "no memory is left"}
    command = f"{RUNS['grpo']} --output-dir {tmp_path / 'runs'}"
    begun = time.monotonic()
    process = runs.begin(command, str(tmp_path / "log"), moment={"signals": [], "rank": 0, **when}, ranks=2)
    assert runs.end(process) != 0
    assert time.monotonic() - begun < 60


def test_a_mistake_ends_all_ranks_with_one_sentence(tmp_path: Path) -> None:
    process = torchrun(tmp_path / "runs", 1, "--eval-every", "1", "--keep-best", "nothing", "--eval-episodes", "2")
    said, _ = process.communicate(timeout=200)
    assert process.returncode != 0
    assert said.count("keep_best: expected one of") == 1
    assert not list(tmp_path.glob("runs/*"))

"""A run that is killed again and again ends as one that never was: to the bit, with no episode lost or doubled.

`make chaos` kills a hundred times; the tests do it a few times.
"""

import functools
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forked_runs import Runs, without_times
from left_behind import on_the_machine, processes_of, wait_until_nothing_is_left
from safetensors.torch import load_file
from tiers import long_but

from llmgym.data.trajectories import read_trajectories

KILLS = int(os.environ.get("LLMGYM_CHAOS_KILLS", "5"))  # over all kinds of run
SEED = int(os.environ.get("LLMGYM_CHAOS_SEED", "0"))
COMMON = "--max-tokens 40 --sample-every 0 --steps 4 --save-every 1 --keep 2"
PLAYED = f"{COMMON} --prompts-per-step 2 --group-size 3 --eval-episodes 4"
RUNS = {
    "grpo": f"grpo {PLAYED} --measure-kl always",
    "ppo": f"ppo {PLAYED} --kl-coef 0.05 --kl-target 0.01 --kl-in reward --critic own",
    "opo": f"opo {PLAYED} --reference-every 2 --epochs 2 --eval-every 2 --keep-best reward",
    "kto": f"kto {COMMON} --examples 24 --batch-size 8 --eval-episodes 4",
    "lora": f"grpo {PLAYED} --lora-rank 4 --learning-rate 1e-2",
}
if KILLS >= 50:  # they start slowly; tests/train/test_ray_rollouts.py kills a few
    RUNS["workers"] = f"grpo {PLAYED} --rollout-workers 2 --worker-restarts 0"


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    found = Runs()
    yield found
    found.close()


def run(runs: Runs, command: str, output: Path, **options: Any) -> int:
    """Run a command to its end, or kill it after some seconds; return its exit status."""
    process = runs.begin(f"{command} --output-dir {output}", f"{output}.log", options.pop("moment", None))
    return runs.end(process, **options)


def outcome(output: Path) -> dict[str, Any]:
    """Return all that a run came to, without times and places."""
    (run,) = (one for one in output.iterdir() if one.is_dir())
    state = json.loads((run / "checkpoint" / "state" / "state.json").read_text())
    state["journal"]["metrics"] = without_times(state["journal"]["metrics"])
    tensors = load_file(run / "checkpoint" / "state" / "state.safetensors")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    shards = sorted((run / "trajectories").iterdir())
    return {
        "state": state,
        "tensors": {name: hashlib.sha256(one.numpy().tobytes()).hexdigest() for name, one in tensors.items()},
        "model": sorted(
            hashlib.sha256(file.read_bytes()).hexdigest() for file in (run / "checkpoint").glob("*.safetensors")
        ),
        "metrics": without_times(rows),
        "trajectories": {shard.name: read_trajectories(shard) for shard in shards},
        "evaluations": json.loads((run / "evaluations.json").read_text()),
    }


@pytest.fixture(scope="module")
def whole(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[dict[str, Any], float]]:
    """Return what the run of a kind comes to that nobody interrupts, and how many seconds it takes."""

    @functools.cache
    def of(kind: str) -> tuple[dict[str, Any], float]:
        output = tmp_path_factory.mktemp("whole") / kind
        begun = time.monotonic()
        assert run(runs, RUNS[kind], output) == 0, said(output)
        return outcome(output), time.monotonic() - begun

    return of


def said(output: Path) -> str:
    return Path(f"{output}.log").read_text()[-3000:]


def check(output: Path, expected: dict[str, Any]) -> None:
    """Compare what a run came to; directories of runs that were killed before they had a checkpoint are deleted."""
    for one in [one for one in output.iterdir() if one.is_dir() and not (one / "checkpoint").exists()]:
        assert not list(one.glob("checkpoints/step-*"))
        shutil.rmtree(one)
    found = outcome(output)
    for part, value in expected.items():
        assert found[part] == value, f"{part} of {output}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", long_but(RUNS, "grpo", "ppo"))
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_never_was(
    kind: str, runs: Runs, whole: Any, tmp_path: Path
) -> None:
    chance = random.Random(f"{kind} {SEED}")
    expected, seconds = whole(kind)
    left, number = -(-KILLS // len(RUNS)), 0
    while left > 0:
        number += 1
        output = tmp_path / f"run-{number}"
        status = -signal.SIGKILL
        while status == -signal.SIGKILL:
            after = chance.uniform(0.0, seconds) if left > 0 else None
            status = run(runs, f"{RUNS[kind]} --resume", output, kill_after=after)
            left -= status == -signal.SIGKILL
        assert status == 0, said(output)
        check(output, expected)


@pytest.mark.slow
@pytest.mark.skipif(KILLS < 50, reason="takes minutes: make chaos")
@pytest.mark.parametrize("victim", ["worker", "learner"])
@pytest.mark.parametrize("options", ["", "--max-staleness 2 --weights-in-flight"], ids=["in turn", "in flight"])
def test_ten_kills_of_a_run_with_workers_lose_nothing_and_leave_nothing(
    victim: str, options: str, tmp_path: Path
) -> None:
    """Workers are killed while they play, or start; the learner whenever, and then the run is gone on with."""
    chance, before = random.Random(f"{victim} {options} {SEED}"), on_the_machine()
    command = RUNS["workers"].replace("--steps 4", "--steps 30").replace("--worker-restarts 0", "--worker-restarts 99")
    kills = number = 0
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as temporary:  # sockets take no long path
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= {"TMPDIR": temporary, "OMP_NUM_THREADS": "1"}
        while kills < 10:
            number, status = number + 1, None
            output = tmp_path / f"run-{number}"
            words = f"-m llmgym.agents.{command} {options} --resume --output-dir {output}".split()
            while status != 0:
                with open(f"{output}.log", "a") as log:
                    process = subprocess.Popen(
                        [sys.executable, *words], env=environment, stdout=log, stderr=subprocess.STDOUT
                    )
                while process.poll() is None and kills < 10:
                    time.sleep(chance.uniform(0.0, 6.0 if victim == "worker" else 25.0))
                    found = [process.pid] if victim == "learner" else processes_of(temporary, "ray::RolloutWorker")
                    if found and process.poll() is None:
                        os.kill(chance.choice(found), signal.SIGKILL)
                        kills += 1
                status = process.wait(timeout=600)
                assert status in (0, -signal.SIGKILL), said(output)
                wait_until_nothing_is_left(Path(temporary), before)
            every_episode_counts_once(output, steps=30, episodes=6)


def every_episode_counts_once(output: Path, steps: int, episodes: int) -> None:
    """Check a run that may have been killed; directories without a checkpoint are those of earlier tries."""
    (run,) = (one for one in output.glob("*/") if (one / "checkpoint").exists())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    assert all(row["episodes/asked"] == episodes for row in rows)
    shards = [read_trajectories(shard) for shard in sorted((run / "trajectories").iterdir())]
    assert [len(shard) for shard in shards] == [episodes] * steps
    tasks = [tuple(dict.fromkeys(episode.seed for episode in shard)) for shard in shards]
    assert len({*tasks}) == steps  # no step has the tasks of another one


MOMENTS = {
    "start": ("llmgym.train.trainer:Trainer._announce", 1),
    "evaluation before": ("llmgym.train.actor:evaluate", 1),
    "rollout": ("llmgym.rollout.collector:Collector._play", 3),
    "scoring": ("llmgym.envs.vector:TextVectorEnv.release_one", 15),
    "update": ("llmgym.learn.learner:Learner.update", 4),
    "hand-over": ("llmgym.train.actor:Actor.hand_over", 2),
    "journal": ("llmgym.report.run_directory:RunDirectory.add_metrics", 2),
    "saving": ("llmgym.train.keeper:Keeper._write", 2),
    "renaming": ("llmgym.train.checkpoints:rename", 2),
    "evaluation after": ("llmgym.train.actor:HeldOutEpisodes.evaluate", 2),
    "last saving": ("llmgym.train.keeper:Keeper.save_at_end", 1),
}


ASKED = [
    *((moment, signal.SIGTERM) for moment in MOMENTS),
    *((moment, number) for moment in ("rollout", "update") for number in (signal.SIGINT, signal.SIGHUP)),
]
SOME = [
    *((moment, signal.SIGTERM) for moment in ("start", "rollout", "update", "saving", "renaming", "evaluation after")),
    ("rollout", signal.SIGINT),
    ("update", signal.SIGHUP),
]


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "number"), long_but(ASKED, *SOME))
def test_a_run_that_is_asked_to_end_saves_and_goes_on_as_if_nobody_had(
    moment: str, number: signal.Signals, runs: Runs, whole: Any, tmp_path: Path
) -> None:
    function, call = MOMENTS[moment]
    when = {"function": function, "call": call, "signals": [number]}
    status = run(runs, f"{RUNS['grpo']} --resume", tmp_path / "run", moment=when)
    assert status == (128 + number if moment != "last saving" else 0), said(tmp_path / "run")
    assert len(list((tmp_path / "run").glob("*"))) == (moment not in ("start", "evaluation before"))
    assert run(runs, f"{RUNS['grpo']} --resume", tmp_path / "run") == 0, said(tmp_path / "run")
    check(tmp_path / "run", whole("grpo")[0])


@pytest.mark.slow
def test_asked_twice_a_run_leaves_at_once_and_can_be_gone_on_with(runs: Runs, whole: Any, tmp_path: Path) -> None:
    when = {
        "function": "llmgym.rollout.collector:Collector._play",
        "call": 4,
        "signals": [signal.SIGTERM, signal.SIGTERM],
    }
    assert run(runs, f"{RUNS['grpo']} --resume", tmp_path / "run", moment=when) == 143
    (directory,) = (tmp_path / "run").iterdir()
    assert not (directory / "checkpoint").exists()
    assert run(runs, f"{RUNS['grpo']} --resume", tmp_path / "run") == 0, said(tmp_path / "run")
    check(tmp_path / "run", whole("grpo")[0])

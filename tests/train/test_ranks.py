"""Several ranks learn what one process learns, whatever shares of a batch, and of the model, fall to them."""

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
from tiers import long_but
from transformers import AutoModelForCausalLM

from llmgym.config.presets import directory_of
from llmgym.train.checkpoints import checkpoints_of

pytestmark = pytest.mark.slow

COMMON = "--max-tokens 40 --sample-every 0 --steps 2 --save-every 0 --learning-rate 1e-5 --learning-rate-decay none"
PLAYED = f"{COMMON} --prompts-per-step 4 --group-size 4 --eval-episodes 0"
SMALL, WHOLE = "--micro-batch-tokens 200", "--micro-batch-tokens 100000"  # the latter leaves one rank without a share
TAUGHT = f"{COMMON} {SMALL} --examples 24 --batch-size 8 --eval-episodes 0"
RUNS = {
    "grpo": f"grpo {PLAYED} {SMALL} --measure-kl always --mismatch-correction truncate",
    "grpo, a rank without a share": f"grpo {PLAYED} {WHOLE} --updates-per-step 1",
    "ppo": f"ppo {PLAYED} {SMALL} --kl-coef 0.05 --kl-target 0.01 --kl-in reward --critic own",
    "opo": f"opo {PLAYED} {SMALL} --reference-every 1 --epochs 2",
    "sft": f"sft {TAUGHT}",
    "lora": f"grpo {PLAYED} {SMALL} --lora-rank 4",
}
MORE = {
    "ppo, one trunk": f"ppo {PLAYED} {SMALL} --critic shared",
    "kto, checkpointing": f"kto {TAUGHT} --gradient-checkpointing",
}
"""What differs only in a sharded model."""


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    found = Runs()
    yield found
    found.close()


Learnt = tuple[dict[str, torch.Tensor], list[dict[str, float]]]


def learnt(runs: Runs, command: str, ranks: int, output: Path) -> Learnt:
    """Return the state and the metrics of a run."""
    log = f"{output}.log"
    status = runs.end(runs.begin(f"{command} --output-dir {output}", log, ranks=ranks))
    assert status == 0, Path(log).read_text()[-3000:]
    rows = [json.loads(line) for line in (run_in(output) / "metrics.jsonl").read_text().splitlines()]
    return load_file(run_in(output) / "checkpoint" / "state" / "state.safetensors"), without_times(rows)


def run_in(output: Path) -> Path:
    """Return the only run directory there."""
    (run,) = (one for one in output.iterdir() if one.is_dir())
    return run


def assert_equal(found: Learnt, expected: Learnt) -> None:
    """Compare what two runs learnt, up to rounding."""
    assert found[0].keys() == expected[0].keys()
    for name, tensor in expected[0].items():
        assert torch.allclose(found[0][name].double(), tensor.double(), rtol=0, atol=1e-6), name
    for row, other in zip(expected[1], found[1], strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            rounding = 1e-4 if name == "mismatch/log_ratio_max" else 1e-5
            assert math.isclose(value or 0.0, other[name] or 0.0, rel_tol=1e-3, abs_tol=rounding), name


@pytest.mark.parametrize("kind", long_but(RUNS, "grpo", "grpo, a rank without a share", "sft"))
def test_ranks_learn_what_one_process_does(kind: str, runs: Runs, tmp_path: Path) -> None:
    expected = learnt(runs, RUNS[kind], 1, tmp_path / "1")
    for count in (2, 4) if kind == "grpo" else (2,):
        assert_equal(learnt(runs, RUNS[kind], count, tmp_path / str(count)), expected)
    assert_equal(learnt(runs, f"{RUNS[kind]} --sharded", 2, tmp_path / "sharded"), expected)


@pytest.mark.parametrize("kind", long_but(MORE, "ppo, one trunk"))
def test_ranks_with_a_part_of_the_model_each_learn_what_one_process_does(kind: str, runs: Runs, tmp_path: Path) -> None:
    expected = learnt(runs, MORE[kind], 1, tmp_path / "1")
    assert_equal(learnt(runs, f"{MORE[kind]} --sharded", 2, tmp_path / "2"), expected)


@pytest.mark.parametrize("kind", long_but(["ppo", "lora", "opo"], "opo"))
def test_a_sharded_run_is_gone_on_with_by_one_process_and_the_other_way_round(
    kind: str, runs: Runs, tmp_path: Path
) -> None:
    more = f"{RUNS[kind]} --resume".replace("--steps 2", "--steps 3")
    expected = learnt(runs, more, 1, tmp_path / "1")
    for first, then in (("--sharded", ""), ("", "--sharded")):
        output = tmp_path / f"first{first}"
        learnt(runs, f"{RUNS[kind]} --resume {first}", 2 if first else 1, output)
        assert_equal(learnt(runs, f"{more} {then}", 2 if then else 1, output), expected)


@torch.no_grad()
@pytest.mark.parametrize("options", long_but(["--lora-rank 4 --lora-merge", "--lora-rank 4", ""], "--lora-rank 4"))
def test_what_a_sharded_run_saves_is_one_model_that_transformers_opens(
    options: str, runs: Runs, tmp_path: Path
) -> None:
    command = f"grpo {PLAYED} {SMALL} {options} --measure-kl always".replace("1e-5", "1e-3")
    learnt(runs, command, 1, tmp_path / "1")
    learnt(runs, f"{command} --sharded", 2, tmp_path / "2")
    tokens = torch.arange(3, 60)[None]
    one, two = (
        AutoModelForCausalLM.from_pretrained(run_in(tmp_path / name) / "checkpoint")(tokens).logits.log_softmax(-1)
        for name in ("1", "2")
    )
    assert torch.allclose(one, two, atol=1e-4)
    begun = AutoModelForCausalLM.from_pretrained(directory_of("tiny"))(tokens).logits.log_softmax(-1)
    assert (one - begun).abs().max() > 0.01


def ranks_of(launcher: int) -> list[int]:
    """Return the processes that a launcher has started."""
    return [int(one) for one in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]


def launch(*words: str, ranks: int = 2) -> subprocess.Popen[str]:
    """Start ranks as a user does; the words are a script, or ``-m`` and a module, and its arguments."""
    torch_run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return subprocess.Popen(
        [*torch_run, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def torchrun(output: Path, steps: int, *words: str, ranks: int = 2) -> subprocess.Popen[str]:
    """Begin a run."""
    command = f"-m llmgym.agents.grpo --env AIOpsTriage {PLAYED} {SMALL} --output-dir {output} --resume"
    every_step = command.replace("--steps 2 --save-every 0", f"--steps {steps} --save-every 1")
    return launch(*every_step.split(), *words, ranks=ranks)


def test_an_error_of_one_rank_in_the_middle_of_a_sharded_update_ends_all(runs: Runs, tmp_path: Path) -> None:
    """The other one waits for its part of a layer, so parameters cannot be saved."""
    when = {"function": "llmgym.train.online:OnlineSteps._update", "call": 2, "raises": "no memory is left"}
    command = f"{RUNS['grpo']} --sharded --save-every 1 --output-dir {tmp_path / 'runs'}".replace("--save-every 0", "")
    begun = time.monotonic()
    process = runs.begin(command, str(tmp_path / "log"), moment={"signals": [], "rank": 0, **when}, ranks=2)
    assert runs.end(process) != 0
    assert time.monotonic() - begun < 300  # collectives wait half an hour
    assert [one.step for one in checkpoints_of(run_in(tmp_path / "runs")) if one.fault() is None] == [1]


ONE_SIDED = """
import os
import sys

from llmgym.agents.grpo import main
from llmgym.errors import ModelError
from llmgym.learn.trunk import Trunk

states, calls = Trunk.states, iter(range(10**6))

def fails_on_one_rank(self, batch):
    if os.environ["RANK"] == sys.argv[1] and next(calls) == 12:
        raise ModelError("Expected something else of this micro-batch.")
    return states(self, batch)

Trunk.states = fails_on_one_rank
if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(("words", "rank"), long_but([("", 1), ("--sharded", 0)], ("--sharded", 0)))
def test_an_error_that_one_rank_alone_has_ends_all_with_its_sentence(words: str, rank: int, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(ONE_SIDED)
    options = f"{PLAYED} {SMALL} --output-dir {tmp_path / 'runs'} --env AIOpsTriage".split()
    process = launch(str(tmp_path / "script.py"), str(rank), *options, *words.split())
    begun = time.monotonic()
    said, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "Expected something else of this micro-batch." in said
    assert time.monotonic() - begun < 300  # collectives wait half an hour


@pytest.mark.parametrize("words", long_but(["--sharded", ""], "--sharded"))
@pytest.mark.parametrize("how", long_but(["asked to end", "one is killed"], "asked to end"))
def test_ranks_that_are_asked_to_end_save_and_another_number_goes_on(how: str, words: str, tmp_path: Path) -> None:
    process = torchrun(tmp_path / "runs", 10**6, *words.split())
    until = time.monotonic() + 200
    while not list(tmp_path.glob("runs/*/**/complete.json")) and time.monotonic() < until and process.poll() is None:
        time.sleep(0.1)
    if how == "asked to end":
        process.send_signal(signal.SIGTERM)
    else:
        os.kill(max(ranks_of(process.pid)), signal.SIGKILL)
    said, _ = process.communicate(timeout=300)
    (run,) = (tmp_path / "runs").iterdir()
    taken = max(one.step for one in checkpoints_of(run) if one.fault() is None)
    assert how == "one is killed" or taken == len((run / "metrics.jsonl").read_text().splitlines())
    assert said.count("Run directory:") == 1  # one rank speaks
    assert "[rank0]" not in said  # no traceback of its own
    again = torchrun(tmp_path / "runs", taken + 1, ranks=1)
    said, _ = again.communicate(timeout=200)
    assert again.returncode == 0, said
    assert f"Going on from step {taken}" in " ".join(said.split())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, taken + 2))


@pytest.mark.long
@pytest.mark.parametrize("words", ["--sharded --lora-rank 4", ""])
def test_the_first_rank_may_have_rollout_workers(words: str, tmp_path: Path) -> None:
    process = torchrun(tmp_path / "runs", 2, "--rollout-workers", "1", *words.split())
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert said.count("1 rollout worker on Ray") == 1


SCRIPT = """
import sys
from llmgym.agents.grpo import GRPO

if __name__ == "__main__":
    agent = GRPO("AIOpsTriage", sharded=True, prompts_per_step=1, group_size=2, max_tokens=8, eval_episodes=0,
                 sample_every=0, output_dir=sys.argv[1] + "/runs")
    agent.train(steps=1)
    agent.train(steps=1)
    agent.save(sys.argv[1] + "/saved")
"""


@pytest.mark.long
def test_a_script_trains_twice_and_saves_a_sharded_model(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    process = launch(str(tmp_path / "script.py"), str(tmp_path))
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").state_dict()
    second = max((tmp_path / "runs").iterdir(), key=lambda run: run.stat().st_mtime)
    kept = AutoModelForCausalLM.from_pretrained(second / "checkpoint").state_dict()
    assert all(torch.equal(saved[name], value) for name, value in kept.items())


def test_an_error_in_the_update_of_the_first_rank_ends_all(runs: Runs, tmp_path: Path) -> None:
    """Its share of an update fails while the other rank waits for its gradients."""
    when = {"function": "llmgym.learn.ranks:total", "call": 1, "raises": "no memory is left"}
    command = f"{RUNS['grpo']} --output-dir {tmp_path / 'runs'}"
    begun = time.monotonic()
    process = runs.begin(command, str(tmp_path / "log"), moment={"signals": [], "rank": 0, **when}, ranks=2)
    assert runs.end(process) != 0
    assert time.monotonic() - begun < 300  # collectives wait half an hour


@pytest.mark.long
def test_a_mistake_ends_all_ranks_with_one_sentence(tmp_path: Path) -> None:
    process = torchrun(tmp_path / "runs", 1, "--eval-every", "1", "--keep-best", "nothing", "--eval-episodes", "2")
    said, _ = process.communicate(timeout=200)
    assert process.returncode != 0
    assert said.count("keep_best: expected one of") == 1
    assert not list(tmp_path.glob("runs/*"))

"""Workers on Ray play what one process plays, to the bit, also where one of them dies."""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_runs import without_times
from left_behind import left_of
from safetensors.torch import load_file

import llmgym
from llmgym.agents import GRPO
from llmgym.config.presets import directory_of
from llmgym.data.trajectories import read_trajectories
from llmgym.errors import ConfigError, EngineError, FailureRateError, StaleCompletionError
from llmgym.learn.batch import collate
from llmgym.learn.mismatch import importance_weights
from llmgym.models.causal_lm import load_causal_lm
from llmgym.rollout.trajectory import Trajectory
from llmgym.train.ray_rollouts import RayRollouts, _tell_of_idle
from llmgym.train.ray_workers import RayWorkers
from llmgym.train.trainer import Result
from llmgym.workers.ray_session import RaySession

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("OMP_NUM_THREADS") != "1",
        reason="compares this process with workers of one thread to the bit; make test sets OMP_NUM_THREADS=1",
    ),
]

SMALL: dict[str, Any] = {
    "prompts_per_step": 4,
    "group_size": 4,
    "max_tokens": 40,
    "eval_episodes": 3,
    "sample_every": 0,
    "learning_rate_decay": "none",
}


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[RaySession]:
    """A local Ray, which the runs of this module share; that each can have its own, other tests show."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a worker has
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchrl has imported ray already: there is no token
        found = RaySession(None, cpus=8, uses_gpus=False, store_bytes=2**28)
    yield found
    found.close()
    torch.set_num_threads(threads)


def train(output: Path, steps: int = 3, **options: Any) -> Result:
    agent = GRPO(output_dir=output, **{**SMALL, **options})
    try:
        return agent.train(steps=steps)
    finally:
        agent.close()


def outcome(run: Result) -> dict[str, Any]:
    """Return all that a run came to, without times."""
    weights = load_file(run.path / "checkpoint" / "model.safetensors")
    return {
        "weights": {name: one.numpy().tobytes() for name, one in weights.items()},
        "metrics": without_times(run.metrics),
        "trajectories": [read_trajectories(shard) for shard in sorted((run.path / "trajectories").iterdir())],
        "evaluations": (run.before, run.after),
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return outcome(train(tmp_path_factory.mktemp("alone"), groups_at_once=2))


def test_two_workers_play_and_teach_what_one_process_does_to_the_bit(alone: dict[str, Any], tmp_path: Path) -> None:
    assert outcome(train(tmp_path, rollout_workers=2)) == alone


def test_a_worker_that_is_killed_costs_no_episode(alone: dict[str, Any], tmp_path: Path, capfd: Any) -> None:
    agent = GRPO(output_dir=tmp_path, rollout_workers=2, groups_at_once=2, **SMALL)
    workers = agent.trainer.student.rollouts.workers  # type: ignore[attr-defined]
    submit, calls = workers.submit, iter(range(999))

    def kills(asked: Any) -> None:
        dies = asked[0].method == "play" and next(calls) in (1, 2)  # the first two steps; the evaluation came before
        victim = a_process_of(workers) if dies else 0
        submit(asked)
        if dies:
            threading.Timer(0.2, os.kill, (victim, signal.SIGKILL)).start()

    workers.submit = kills
    found = outcome(agent.train(steps=3))
    workers.submit = submit
    agent.close()
    agent.close()
    assert found == alone
    assert "Rollout worker" in capfd.readouterr().out
    with pytest.raises(EngineError, match="The rollout workers were closed: expected a new agent"):
        agent.train(steps=1)


def a_process_of(workers: RayWorkers) -> int:
    """Return the process of a worker that is ready and has nothing to do."""
    ready = next(place for place in range(len(workers)) if place not in workers._starting.values())
    process: int = ray.get(workers._actors[ready].__ray_call__.remote(lambda worker: os.getpid()))
    return process


def test_there_is_an_end_to_replacing_workers(tmp_path: Path) -> None:
    agent = GRPO(output_dir=tmp_path, rollout_workers=1, worker_restarts=0, **SMALL)
    victim = a_process_of(agent.trainer.student.rollouts.workers)  # type: ignore[attr-defined]
    threading.Timer(0.3, os.kill, (victim, signal.SIGKILL)).start()
    with pytest.raises(EngineError, match=r"lost 1 times, and at most 0 are replaced \(worker_restarts\)"):
        agent.train(steps=20)
    agent.close()


@pytest.mark.long
def test_groups_of_one_episode_are_played_too(tmp_path: Path) -> None:
    run = train(tmp_path, 1, group_size=1, advantage="reinforce_plus_plus", rollout_workers=1, eval_episodes=0)
    assert run.metrics[0]["episodes/asked"] == 4


@pytest.mark.long
def test_adapters_travel_alone_and_are_merged_where_they_arrive(tmp_path: Path) -> None:
    options = {"lora_rank": 2, "learning_rate": 1e-2, "groups_at_once": 4, "eval_episodes": 0}
    agent = GRPO(output_dir=tmp_path / "ray", rollout_workers=1, **{**SMALL, **options})
    names = [name for name, _ in agent.trainer.student.trained_weights()]  # type: ignore[attr-defined]
    assert names
    assert all("lora_" in name for name in names)
    run = agent.train(steps=2)
    agent.close()
    here = train(tmp_path / "here", steps=2, **options)
    shards = [[read_trajectories(one) for one in sorted((r.path / "trajectories").iterdir())] for r in (run, here)]
    assert shards[0] == shards[1]


def test_a_worker_with_old_weights_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = RayRollouts.load_weights

    def stale(self: RayRollouts, version: int) -> None:
        if version < 2:
            load(self, version)
        else:
            self.weights = (*self.weights[:2], version)

    monkeypatch.setattr(RayRollouts, "load_weights", stale)
    with pytest.raises(EngineError, match="it still has its old weights"):
        train(tmp_path / "canary", rollout_workers=1, groups_at_once=4)
    with pytest.raises(StaleCompletionError, match="given weights of version 2, and sampled with those of version 1"):
        train(tmp_path / "versions", rollout_workers=1, groups_at_once=4, canary_every=0)
    flying = {"rollout_workers": 1, "max_staleness": 1, "weights_in_flight": True}
    with pytest.raises(EngineError, match="it still has its old weights"):
        train(tmp_path / "flying", steps=5, **flying)
    with pytest.raises(
        StaleCompletionError, match="given weights of version 2 to 3, and sampled with those of version 1"
    ):
        train(tmp_path / "versions-flying", steps=5, canary_every=0, **flying)


AHEAD = {"rollout_workers": 2, "max_staleness": 1, "save_every": 1, "keep": 9, "steps": 4}


HOT = 1.5  # replies are longer, and few: to sample takes much longer than to learn, on any machine
FEW = {"prompts_per_step": 2, "group_size": 3, "max_tokens": 100, "temperature": HOT}
IN_FLIGHT = {**AHEAD, **FEW, "max_staleness": 2, "weights_in_flight": True, "steps": 6}


@pytest.fixture(scope="module")
def ahead(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return train(tmp_path_factory.mktemp("ahead"), **AHEAD)


def test_episodes_that_are_played_ahead_are_one_hand_over_old(ahead: Result) -> None:
    shards = [read_trajectories(one) for one in sorted((ahead.path / "trajectories").iterdir())]
    versions = [{reply.weight_version for episode in shard for reply in episode.replies} for shard in shards]
    assert versions == [{0}, {0}, {1}, {2}]
    assert [row["staleness"] for row in ahead.metrics] == [0, 1, 1, 1]


@torch.no_grad()
def plain_log_probs(run: Result, version: int, episode: Trajectory, temperature: float = 1.0) -> torch.Tensor:
    """Return the log-probability of each token but the first under the weights of a version, by a forward pass."""
    saved = run.path / "checkpoints" / f"step-{version:05d}"
    model, _ = load_causal_lm(str(saved) if version else directory_of("tiny"), torch.float32)
    tokens = torch.tensor([episode.tokens])
    log_probs = (model.double()(tokens).logits[0, :-1] / temperature).log_softmax(-1)
    return log_probs.gather(1, tokens[0, 1:, None])[:, 0].detach()


def difference(expected: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """Return how far log-probabilities are apart, relative to those of unlikely tokens, whose rounding is larger."""
    return (expected - given).abs() / expected.abs().clamp(min=1)


def test_each_token_has_the_log_probability_under_the_weights_that_sampled_it(ahead: Result) -> None:
    shards = sorted((ahead.path / "trajectories").iterdir())
    for step, version in ((3, 1), (4, 2)):
        off = {}
        for weights in (version, version + 1):
            worst = 0.0
            for episode in read_trajectories(shards[step - 1])[:6]:
                sampled = torch.tensor(episode.mask[1:])
                given = torch.tensor(episode.log_probs[1:])
                expected = plain_log_probs(ahead, weights, episode)
                worst = max(worst, float(difference(expected, given)[sampled].max()))
            off[weights] = worst
        assert off[version] < 1e-4
        assert off[version + 1] > 1e-3  # those that it learnt with are others


@pytest.fixture(scope="module")
def in_flight(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run in whose third step a worker dies."""
    agent = GRPO(output_dir=tmp_path_factory.mktemp("in-flight"), **{**SMALL, **IN_FLIGHT})
    experience = agent.trainer.steps.experience

    def kills(step: int, last: int) -> Any:
        if step == 3:
            victim = a_process_of(agent.trainer.student.rollouts.workers)  # type: ignore[attr-defined]
            os.kill(victim, signal.SIGKILL)
        return experience(step, last)

    agent.trainer.steps.experience = kills  # type: ignore[method-assign]
    run = agent.train(steps=6)
    agent.close()
    return run


def test_weights_in_flight_give_each_token_a_version_within_the_bound(in_flight: Result) -> None:
    seen, mixed = set(), 0
    for step, shard in enumerate(sorted((in_flight.path / "trajectories").iterdir()), start=1):
        episodes = read_trajectories(shard)
        assert len(episodes) == 6
        for episode in episodes:
            versions = [version for reply in episode.replies for version in reply.token_versions]
            assert versions == sorted(versions)
            assert step - 3 <= versions[0]
            assert versions[-1] <= step - 1
            seen.add((step, *versions))
            mixed += versions[0] < versions[-1]
    assert len(in_flight.metrics) == 6
    assert sum(row["episodes_in_flight"] for row in in_flight.metrics) == mixed > 0
    assert max(row["staleness_max"] for row in in_flight.metrics) == 2
    assert all(row["episodes/asked"] == 6 for row in in_flight.metrics)


def test_each_token_in_flight_has_the_log_probability_under_its_own_weights(in_flight: Result) -> None:
    shards = [read_trajectories(one) for one in sorted((in_flight.path / "trajectories").iterdir())]
    mixed = [episode for shard in shards for episode in shard if any(reply.versions for reply in episode.replies)]
    assert mixed
    of_others: list[float] = []
    for episode in mixed[:8]:
        versions = [-1] * len(episode.tokens)
        for reply in episode.replies:
            versions[reply.start : reply.stop] = reply.token_versions
        given = torch.tensor(episode.log_probs[1:])
        for version in {*versions} - {-1}:
            own = torch.tensor(versions[1:]) == version
            expected = plain_log_probs(in_flight, version, episode, HOT)
            off = difference(expected, given)
            assert off[own].max() < 1e-4
            of_others += off[torch.tensor(episode.mask[1:]) & ~own].tolist()
    assert max(of_others) > 1e-4  # not of each episode: of some tokens both versions are certain


def test_importance_weights_of_tokens_in_flight_are_those_of_a_plain_computation(in_flight: Result) -> None:
    """The weights that learn in a step are those of the step before."""
    most, clipped, tokens = 1.001, 0, 0
    for step, file in enumerate(sorted((in_flight.path / "trajectories").iterdir()), start=1):
        shard = [one for one in read_trajectories(file) if one.replies[0].token_versions[0] < step - 1]
        if not shard:  # fast workers are not always behind
            continue
        batch = collate(shard)
        ours = torch.zeros_like(batch["log_probs"])
        for row, episode in enumerate(shard):
            ours[row, 1 : len(episode.tokens)] = plain_log_probs(in_flight, step - 1, episode, HOT)
        weights, beyond = importance_weights(ours, batch, "truncate", "token", most)
        for row, episode in enumerate(shard):
            for place, sampled in enumerate(episode.mask):
                if sampled:
                    ratio = math.exp(float(ours[row, place]) - episode.log_probs[place])
                    assert float(weights[row, place]) == pytest.approx(min(ratio, most), rel=1e-5)
        at_most = weights[batch["mask"]] == torch.tensor(most)  # a ratio just there rounds as it likes
        assert beyond == pytest.approx(float(at_most.double().mean()))
        clipped, tokens = clipped + int(at_most.sum()), tokens + len(at_most)
    assert 0 < clipped < tokens


@pytest.mark.long
def test_played_ahead_a_run_repeats_to_the_bit_also_where_a_worker_dies(ahead: Result, tmp_path: Path) -> None:
    agent = GRPO(output_dir=tmp_path, **{**SMALL, **AHEAD})
    begin, calls = agent.trainer.steps.player.begin, iter(range(99))  # type: ignore[attr-defined]

    def kills(*arguments: Any, **options: Any) -> Any:
        if next(calls) != 2:
            return begin(*arguments, **options)
        victim = a_process_of(agent.trainer.student.rollouts.workers)  # type: ignore[attr-defined]
        coming = begin(*arguments, **options)
        os.kill(victim, signal.SIGKILL)
        return coming

    agent.trainer.steps.player.begin = kills  # type: ignore[attr-defined]
    found = outcome(agent.train(steps=4))
    agent.close()
    assert found == outcome(ahead)


def test_what_is_not_known_yet_cannot_be_played_ahead() -> None:
    with pytest.raises(ConfigError, match="max_staleness: more than 1 takes weights in flight"):
        GRPO(max_staleness=2, rollout_workers=1)
    with pytest.raises(ConfigError, match="weights_in_flight: nothing is played while a step learns"):
        GRPO(weights_in_flight=True, rollout_workers=1)
    with pytest.raises(ConfigError, match="max_staleness: is about rollout workers"):
        GRPO(max_staleness=1)
    with pytest.raises(ConfigError, match="max_staleness: which groups replace others is known only after"):
        GRPO(max_staleness=1, rollout_workers=1, rollouts_per_step=2)
    with pytest.raises(ConfigError, match="engine_check: compares the engine with weights that are newer"):
        GRPO(max_staleness=1, rollout_workers=1, engine_check=0.1)


def test_what_cannot_be_had_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="worker_cpus: is about rollout workers; expected rollout_workers"):
        GRPO(worker_cpus=2)
    with pytest.raises(ConfigError, match=r"rollout_workers: they take 99 CPUs in all, and Ray has 8"):
        train(tmp_path, rollout_workers=99)
    with pytest.raises(
        ConfigError, match=r"not a client of it; expected auto or HOST:PORT, such as head:6379, got 'ray"
    ):
        GRPO(rollout_workers=1, ray_address="ray://head:10001")
    lock = threading.Lock()
    with pytest.raises(ConfigError, match=r"the scorer cannot be sent to another process .* at the top of a module"):
        train(tmp_path, rollout_workers=1, scorer=lambda episode: float(lock.locked()))
    assert not list(tmp_path.glob("*/"))


def test_workers_that_have_no_core_or_nothing_to_play_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    cores = os.cpu_count() or 1
    _tell_of_idle(GRPO(rollout_workers=cores, prompts_per_step=cores).config)
    assert capsys.readouterr().out == ""
    _tell_of_idle(GRPO(rollout_workers=2 * cores, prompts_per_step=cores).config)
    said = " ".join(capsys.readouterr().out.split())
    assert f"take {2 * cores} cores, and this machine has {cores}" in said
    assert f"{cores} of {2 * cores} rollout workers have nothing to play: a step has {cores} shares." in said


def divides_by_nothing(episode: llmgym.Episode) -> float:
    return 1 / 0


def test_what_fails_in_a_worker_is_told_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FailureRateError, match=r"16 of 16 episodes.*\n16 times: .*ZeroDivisionError"):
        train(tmp_path, rollout_workers=1, scorer=divides_by_nothing, eval_episodes=0)


SCRIPT = """
import os
import signal
import llmgym
from llmgym.agents import GRPO

LEARNER = os.getpid()

@llmgym.register_env("OfMain-v0")
class OfMain(llmgym.TextEnv):
    def begin(self):
        print("a worker begins")
        return "Say something."

@llmgym.register_scorer("elsewhere")
def elsewhere(episode):
    return float(len(episode.actions[0])) + 100 * (os.getpid() != LEARNER)

if __name__ == "__main__":
    agent = GRPO(env="OfMain-v0", scorer="2*elsewhere", rollout_workers=2, prompts_per_step=2, group_size=2,
                 max_tokens=6, eval_episodes=0, output_dir="runs")
    before = signal.getsignal(signal.SIGTERM)
    run = agent.train(steps=STEPS)
    assert signal.getsignal(signal.SIGTERM) is before
    agent.close()
    print("rewards", [row["reward"] for row in run.metrics])
"""


def begun(tmp_path: Path, temporary: Path, steps: int) -> subprocess.Popen[str]:
    """Begin a run whose environment and scorer are of a script, with a Ray of its own."""
    (tmp_path / "mine.py").write_text(SCRIPT.replace("STEPS", str(steps)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "mine.py"],
        cwd=tmp_path,
        env={**environment, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A directory whose path is short enough for the sockets of Ray."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as path:
        yield Path(path)


def test_what_a_script_registers_reaches_the_workers_and_nothing_is_left_of_its_ray(
    tmp_path: Path, temporary: Path
) -> None:
    before = set(Path("/dev/shm").iterdir())
    said, _ = begun(tmp_path, temporary, steps=2).communicate(timeout=300)
    assert "Starting 2 rollout workers on Ray.\n2 rollout workers started in" in said, said
    rewards = json.loads(said.rpartition("rewards ")[2])
    assert all(reward > 200 for reward in rewards)
    assert "Warning" not in said
    assert "a worker begins" in (tmp_path / "runs" / "rollout_workers.log").read_text()
    assert left_of(temporary) == []
    assert {one for one in set(Path("/dev/shm").iterdir()) - before if "plasma" in one.name} == set()


@pytest.mark.long
@pytest.mark.parametrize("delay", [0.3, 4.0])
def test_a_run_that_is_asked_to_end_while_ray_starts_says_so_and_leaves_nothing_of_it(
    tmp_path: Path, temporary: Path, delay: float
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "llmgym.agents.grpo", "--rollout-workers", "1", "--output-dir", str(tmp_path)],
        env={**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    assert any("Starting 1 rollout worker on Ray" in line for line in process.stdout)
    time.sleep(delay)
    process.terminate()
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 143, said
    assert "interrupted" in said
    until = time.monotonic() + 60
    while left_of(temporary) and time.monotonic() < until:
        time.sleep(0.2)
    assert left_of(temporary) == []


@pytest.mark.long
def test_a_group_that_is_asked_to_end_saves_and_leaves_nothing_of_its_ray(tmp_path: Path, temporary: Path) -> None:
    process = begun(tmp_path, temporary, steps=10**6)
    until = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/metrics.jsonl")) and time.monotonic() < until and process.poll() is None:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert list(tmp_path.glob("runs/*/checkpoint/complete.json")), said
    assert "is lost" not in said
    while left_of(temporary) and time.monotonic() < until:
        time.sleep(0.2)
    assert left_of(temporary) == []


def test_a_run_that_is_killed_leaves_nothing_of_its_ray(tmp_path: Path, temporary: Path) -> None:
    process = begun(tmp_path, temporary, steps=10**6)
    until = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/metrics.jsonl")) and time.monotonic() < until and process.poll() is None:
        time.sleep(0.2)
    assert left_of(temporary)
    listening = subprocess.run(["ss", "-tlnpH"], check=False, capture_output=True, text=True).stdout.splitlines()
    ours = [line for line in listening if "ray" in line or "gcs_server" in line]
    assert ours
    loopback = ("127.0.0.1:", "[::1]:", "[::ffff:127.0.0.1]:")
    assert all(line.split()[3].startswith(loopback) for line in ours), ours
    process.kill()
    process.wait()
    while left_of(temporary) and time.monotonic() < until:
        time.sleep(0.2)
    assert left_of(temporary) == []

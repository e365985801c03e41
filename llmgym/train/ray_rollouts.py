"""`RayRollouts`: workers on Ray that play episodes with the weights of a learner that is elsewhere."""

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llmgym.config.sections import OnlineConfig, Sampling
from llmgym.engines.base import Completion, GenerationRequest
from llmgym.envs.vector import TextVectorEnv
from llmgym.errors import ConfigError, StaleCompletionError, import_extra
from llmgym.report.console import notify
from llmgym.rollout.limits import Limits
from llmgym.rollout.task import Task, in_shares, numbered
from llmgym.rollout.trajectory import Trajectory
from llmgym.scorers import AnyScorer
from llmgym.train.actor import Actor
from llmgym.train.algorithm import OnlineAlgorithm
from llmgym.train.ray_workers import Call, RayWorkers
from llmgym.train.rollout_worker import blueprint_of
from llmgym.workers.ray_session import RaySession

_EVALUATED_AT_ONCE = 256  # environments of a worker in an evaluation, at most
_LEAST_STORE = 2**28  # bytes of the object store


class RayRollouts:
    """Workers on Ray, each with an engine, environments and scorers.

    A share of a rollout goes to whoever is free and stays there. Replies are seeded by the number of their episode, so
    the same tokens are sampled whoever plays it. What a worker is asked comes with the weights to do it with: one that
    takes the place of a lost one samples as that one did, unless weights change in flight.

    Args:
        algorithm: Whose episodes are played.
        actor: Whose policy plays them.

    Raises:
        ConfigError: Ray, a worker or what the worker is made of cannot be had.
    """

    def __init__(self, algorithm: OnlineAlgorithm, actor: Actor) -> None:
        config = algorithm.config
        cluster, log = config.cluster, config.run.output_dir / "rollout_workers.log"
        self._actor, self._rollout, begun = actor, config.rollout, time.monotonic()
        self.in_flight = cluster.weights_in_flight
        packed = _packed(algorithm, actor)  # refused before Ray is started
        some = f"{cluster.rollout_workers} rollout worker{'s' * (cluster.rollout_workers > 1)}"
        where = f" at {cluster.ray_address}" if cluster.ray_address else ""
        _tell_of_idle(config)
        notify(f"Starting {some} on Ray{where}.", warning=False)
        self._session = RaySession(
            cluster.ray_address,
            cpus=cluster.rollout_workers * cluster.worker_cpus,
            uses_gpus=cluster.worker_gpus > 0,
            store_bytes=_LEAST_STORE
            + (3 + cluster.max_staleness) * sum(one.nbytes for _, one in actor.trained_weights()),
        )
        self._ray = self._session.ray
        self._loads = 0
        try:
            self.workers = RayWorkers(self._session, cluster, packed, log)
            self.load_weights(0)
        except BaseException:
            self._session.close()
            raise
        notify(f"{some} started in {time.monotonic() - begun:.1f} s. What they print is in {log}.", warning=False)

    def player(
        self, envs: TextVectorEnv, scorer: AnyScorer | None, *, split: str | None = None, needs_scores: bool = True
    ) -> "RayPlayer":
        """Return what has the workers play; `envs` are those of this process, which play nothing."""
        config = self._actor.config
        limits = Limits(
            config.conversation.max_overlong,
            config.environment.max_failure_rate,
            needs_scores=needs_scores and (scorer is not None or envs.has_score),
        )
        if split is not None:
            return RayPlayer(self, limits, split)
        rollout = self._rollout
        size = rollout.groups_at_once or math.ceil(rollout.prompts_per_step / len(self.workers))
        return RayPlayer(self, limits, None, size, size * rollout.group_size)

    def require_training(self, *, log_probs: bool) -> None:
        """Refuse engines that nothing can be learnt from."""
        self._of_all("require_training", log_probs)

    def load_weights(self, version: int) -> None:
        """Have workers sample with what is trained, as it is now: one object, which each machine fetches once."""
        self.workers.require_open()
        self._loads += 1
        stored = self._ray.put({name: _as_array(one) for name, one in self._actor.trained_weights()})
        self.weights = stored, self._loads, version
        if self.in_flight:
            self.workers.bring(*self.weights, [])

    def probe(self, requests: Sequence[GenerationRequest]) -> list[list[Completion]]:
        """Return what the engine of each worker replies."""
        if self.in_flight:
            return [replies for engines in self.workers.bring(*self.weights, list(requests)) for replies in engines]
        return [replies for engines in self._of_all("probe", *self.weights, list(requests)) for replies in engines]

    lends_memory = plays_here = False

    def lend_memory(self) -> None:
        """Do nothing."""

    def abandon(self) -> None:
        """Stop what is played ahead; workers that are busy are replaced."""
        self.workers.abandon()

    def close(self) -> None:
        """End the workers, and Ray if it was started here."""
        self.workers.close()
        self._session.close()

    def _of_all(self, method: str, *arguments: Any) -> list[Any]:
        """Return what every worker replies."""
        calls = [Call(method, arguments, place, queues=True) for place in range(len(self.workers))]
        self.workers.submit(calls)
        return self.workers.wait(calls)


@dataclass(frozen=True)
class Coming:
    """A rollout that is under way.

    Attributes:
        calls: One for each share.
        version: The weights that sample it, or the oldest ones if weights change in flight.
    """

    calls: Sequence[Call]
    version: int


class RayPlayer:
    """Has workers play; see `Player`.

    Args:
        rollouts: Which.
        limits: Of what may go wrong.
        split: Of the environments.
        size: Groups of a share; None for an equal part for each worker.
        places: Environments of each worker; None for as many as there are tasks, within bounds.
    """

    def __init__(
        self,
        rollouts: RayRollouts,
        limits: Limits,
        split: str | None,
        size: int | None = None,
        places: int | None = None,
    ) -> None:
        self._rollouts, self._limits, self._split, self._size, self._places = rollouts, limits, split, size, places

    def collect(self, tasks: Sequence[Task], sampling: Sampling, seed: int = 0) -> list[Trajectory]:
        """Play one episode per task; see `Collector.collect`."""
        return self.take(self.begin(tasks, sampling, seed, queues=False))

    def begin(self, tasks: Sequence[Task], sampling: Sampling, seed: int = 0, *, queues: bool = True) -> Coming:
        """Have workers play with the newest weights, one episode per task, and return at once.

        Args:
            tasks: What to play.
            sampling: How replies are sampled.
            seed: Start of every reply's own seed.
            queues: Whether all shares are given to workers now, though they are busy, so that they never wait.
        """
        groups, workers = len({task.group for task in tasks}), self._rollouts.workers
        shares = in_shares(numbered(tasks), self._size or max(1, math.ceil(groups / len(workers))))
        places = self._places or min(max(map(len, shares), default=1), _EVALUATED_AT_ONCE)
        weights, rest = self._rollouts.weights, (places, sampling, seed)
        calls = [
            Call("play", (*weights, self._split, list(share), *rest), queues=queues, what=_in_words(share))
            for share in shares
        ]
        workers.submit(calls)
        return Coming(calls, version=weights[-1])

    def take(self, coming: Coming) -> list[Trajectory]:
        """Wait for a rollout, and return its trajectories in the order of the tasks; see `Collector.collect`.

        Raises:
            StaleCompletionError: A reply was sampled by other weights than it should have been.
        """
        trajectories = [one for share in self._rollouts.workers.wait(coming.calls) for one in share]
        newest = self._rollouts.weights[-1] if self._rollouts.in_flight else coming.version
        for reply in (reply for trajectory in trajectories for reply in trajectory.replies):
            versions = reply.token_versions
            if not coming.version <= min(versions) <= max(versions) <= newest:
                given = f"version {coming.version}" + (f" to {newest}" if newest != coming.version else "")
                raise StaleCompletionError(
                    f"A rollout worker was given weights of {given}, and sampled with those of version "
                    f"{', '.join(map(str, sorted({*versions})))}. Such replies are never trained on."
                )
        self._limits.count(trajectories)
        return trajectories

    def state_dict(self) -> dict[str, Any]:
        """Return how much went wrong so far."""
        return self._limits.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from what `state_dict` returned."""
        self._limits.load_state_dict(state)


def _tell_of_idle(config: OnlineConfig) -> None:
    """Say if more workers are asked for than there are cores, or than have something to play."""
    cluster, rollout = config.cluster, config.rollout
    workers, cores = cluster.rollout_workers, os.cpu_count() or 1
    if cluster.ray_address is None and workers * cluster.worker_cpus > cores:
        notify(
            f"{workers} rollout workers with {cluster.worker_cpus} threads each take {workers * cluster.worker_cpus} "
            f"cores, and this machine has {cores}: they will slow each other down."
        )
    shares = math.ceil(rollout.prompts_per_step / (rollout.groups_at_once or 1)) * (1 + cluster.max_staleness)
    if workers > shares:
        notify(f"{workers - shares} of {workers} rollout workers have nothing to play: a step has {shares} shares.")


def _packed(algorithm: OnlineAlgorithm, actor: Actor) -> bytes:
    """Return what workers are made from, as it is sent.

    Raises:
        ConfigError: Something of the user's cannot be sent.
    """
    dumps = import_extra("ray", "ray").cloudpickle.dumps
    blueprint = blueprint_of(algorithm, actor)
    for part, what in (
        (blueprint.env, f"environment {algorithm.env_id}"),
        (blueprint.scorer, "scorer"),
        (blueprint.rows, "data"),
    ):
        try:
            dumps(part)
        except Exception as error:
            raise ConfigError(
                f"rollout_workers: the {what} cannot be sent to another process ({type(error).__name__}: "
                f"{str(error)[:500]}). Define it at the top of a module, and let it open files and connections when it "
                "is first used."
            ) from error
    packed: bytes = dumps(blueprint)
    return packed


def _in_words(share: Sequence[Task]) -> str:
    """Name the tasks of a share."""
    tasks = dict.fromkeys(f"seed {task.seed}" if task.row is None else f"row {task.row}" for task in share)
    return f"{', '.join(list(tasks)[:4])}{' and others' if len(tasks) > 4 else ''}"


def _as_array(weights: torch.Tensor) -> NDArray[Any]:
    """Return weights as Ray sends them without copying them once more; NumPy has no bfloat16, so its bits travel."""
    weights = weights.detach().cpu()
    array: NDArray[np.generic] = (weights.view(torch.int16) if weights.dtype == torch.bfloat16 else weights).numpy()
    return array

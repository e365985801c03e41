"""`RayRollouts`: workers on Ray that play episodes; one that is lost costs time and no episode."""

import math
import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llmgym.config.sections import Sampling
from llmgym.engines.base import Completion, GenerationRequest
from llmgym.envs.vector import TextVectorEnv
from llmgym.errors import ConfigError, EngineError, StaleCompletionError
from llmgym.report.console import notify
from llmgym.rollout.limits import Limits
from llmgym.rollout.task import Task, in_shares, numbered
from llmgym.rollout.trajectory import Trajectory
from llmgym.scorers import AnyScorer
from llmgym.train.actor import Actor
from llmgym.train.algorithm import OnlineAlgorithm
from llmgym.train.rollout_worker import RolloutWorker, blueprint_of
from llmgym.workers.ray_session import RaySession

_GLANCE = 0.2  # seconds in which Ray is waited for without looking up; a signal is heard in between
_EVALUATED_AT_ONCE = 256  # environments of a worker in an evaluation, at most
_LEAST_STORE = 2**28  # bytes of the object store


class RayRollouts:
    """Workers on Ray, each with an engine, environments and scorers.

    A share of a rollout goes to whoever is free and stays there. Replies are seeded by the number of their episode, so
    the same tokens are sampled whoever plays it. A worker that is lost is replaced, given the newest weights, and what
    it had not finished is played again; meanwhile the others go on.

    Args:
        algorithm: Whose episodes are played.
        actor: Whose policy plays them.

    Raises:
        ConfigError: Ray, a worker or what the worker is made of cannot be had.
    """

    def __init__(self, algorithm: OnlineAlgorithm, actor: Actor) -> None:
        config = algorithm.config
        self._actor, self._cluster, self._log = actor, config.cluster, config.run.output_dir / "rollout_workers.log"
        self._version, self._weights = 0, None  # as they are in the object store
        self._restarts = 0
        begun, cluster = time.monotonic(), config.cluster
        self._trained = [one for _, one in self._travelling()]
        weights = sum(one.numel() * one.element_size() for one in self._trained)
        self._session = RaySession(
            cluster.ray_address,
            cpus=cluster.rollout_workers * cluster.worker_cpus,
            uses_gpus=cluster.worker_gpus > 0,
            store_bytes=_LEAST_STORE + 3 * weights,
        )
        self._ray = self._session.ray
        try:
            self._session.require(
                cluster.rollout_workers * cluster.worker_cpus, cluster.rollout_workers * cluster.worker_gpus
            )
            self._packed = self._pack(algorithm)
            self._workers = [_Worker(self._make(), number) for number in range(cluster.rollout_workers)]
            self._starting = {self._start(worker): worker for worker in self._workers}
            while self._starting:
                self._look(list(self._starting))
        except BaseException:
            self._session.close()
            raise
        where = f" at {cluster.ray_address}" if cluster.ray_address else ""
        notify(
            f"{cluster.rollout_workers} rollout worker{'s' * (cluster.rollout_workers > 1)} on Ray{where}, started in "
            f"{time.monotonic() - begun:.1f} s. What they print is in {self._log}.",
            warning=False,
        )

    # What a trainer asks for.

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
        return RayPlayer(self, limits, split, self._actor.groups_at_once if split is None else None)

    def require_training(self, *, log_probs: bool) -> None:
        """Refuse engines that nothing can be learnt from."""
        self._of_all("require_training", log_probs=log_probs)

    def load_weights(self, version: int) -> None:
        """Give all workers what is trained, as it is now: one object, which each machine fetches once."""
        self._weights = self._ray.put({name: _as_array(one) for name, one in self._travelling()})
        self._version = version
        self._of_all("load_weights", self._weights, version)

    def probe(self, requests: Sequence[GenerationRequest]) -> list[list[Completion]]:
        """Return what the engine of each worker replies."""
        return [replies for engines in self._of_all("probe", list(requests)) for replies in engines]

    @property
    def lends_memory(self) -> bool:
        """Whether an engine shares the learner's accelerator: they are elsewhere."""
        return False

    def lend_memory(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """End the workers, and Ray if it was started here."""
        for worker in self._workers:
            self._ray.kill(worker.actor)
        self._session.close()

    # Playing.

    @property
    def workers(self) -> int:
        """How many there are to be."""
        return self._cluster.rollout_workers

    def play(
        self, split: str | None, shares: Sequence[Sequence[Task]], sampling: Sampling, seed: int
    ) -> list[list[Trajectory]]:
        """Return the trajectories of each share, in order, whoever has played it.

        Raises:
            StaleCompletionError: A reply was sampled by other weights than the newest.
            EngineError: More workers were lost than are replaced.
        """
        waiting = deque(range(len(shares)))
        playing: dict[Any, tuple[_Worker, int]] = {}
        played: dict[int, list[Trajectory]] = {}
        places = max(map(len, shares), default=1)
        places = places if split is None else min(places, _EVALUATED_AT_ONCE)
        try:
            while len(played) < len(shares):
                busy = [worker for worker, _ in playing.values()]
                for worker in self._workers:
                    if waiting and worker not in busy and worker not in self._starting.values():
                        share = waiting.popleft()
                        reply = worker.actor.play.remote(split, places, list(shares[share]), sampling, seed)
                        playing[reply] = worker, share
                for reply in self._look([*playing, *self._starting]):
                    if reply in playing:
                        worker, share = playing.pop(reply)
                        if (found := self._reply(worker, reply)) is None:
                            waiting.appendleft(share)
                        else:
                            played[share] = found
        except BaseException:
            for worker, _ in playing.values():  # which would go on with what nobody waits for
                self._replace(worker, counts=False)
            raise
        for trajectory in (one for share in played.values() for one in share):
            self._require_newest(trajectory)
        return [played[share] for share in range(len(shares))]

    def _require_newest(self, trajectory: Trajectory) -> None:
        versions = {reply.weight_version for reply in trajectory.replies} - {self._version}
        if versions:
            raise StaleCompletionError(
                f"A rollout worker sampled with weights of version {min(versions)}, and the newest are of version "
                f"{self._version}. Stale replies are never trained on."
            )

    # Workers.

    def _travelling(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Return what is trained of the model: all else is the same everywhere."""
        return [(name, one) for name, one in self._actor.model.named_parameters() if one.requires_grad]

    def _pack(self, algorithm: OnlineAlgorithm) -> bytes:
        """Return what workers are made from, as it is sent.

        Raises:
            ConfigError: Something of the user's cannot be sent.
        """
        try:
            packed: bytes = self._ray.cloudpickle.dumps(blueprint_of(algorithm, self._actor))
        except Exception as error:
            raise ConfigError(
                f"rollout_workers: the environment, the scorer or the data cannot be sent to another process "
                f"({type(error).__name__}: {str(error)[:500]}). Define them at the top of a module, and let them open "
                "files and connections when they are first used."
            ) from error
        return packed

    def _make(self) -> Any:
        """Return a new actor, which may have to wait for its place."""
        cluster = self._cluster
        options = {"num_cpus": cluster.worker_cpus, "num_gpus": cluster.worker_gpus, "max_restarts": 0}
        return self._ray.remote(RolloutWorker).options(**options, max_task_retries=0).remote()

    def _start(self, worker: "_Worker") -> Any:
        """Have a worker get ready, with the newest weights; return what is known when it is."""
        place = {
            "paths": [os.path.abspath(one) for one in sys.path],
            "directory": os.getcwd(),
            "log": str(self._log.absolute()),
            "threads": self._cluster.worker_cpus,
        }
        ready = worker.actor.start.remote(self._ray.cloudpickle.loads, self._packed, place)
        if self._weights is not None:  # calls are answered in their order
            ready = worker.actor.load_weights.remote(self._weights, self._version)
        return ready

    def _look(self, replies: Sequence[Any]) -> list[Any]:
        """Return replies that are there, after a glance; workers that are ready are no longer starting."""
        done: list[Any]
        done, _ = self._ray.wait(list(replies), num_returns=1, timeout=_GLANCE)
        for reply in done:
            if (worker := self._starting.pop(reply, None)) is not None:
                self._reply(worker, reply)
        return done

    def _reply(self, worker: "_Worker", reply: Any) -> Any:
        """Return what a worker has replied; None if it is lost, and another one is on its way.

        Raises:
            Exception: The worker has raised it.
        """
        try:
            found = self._ray.get(reply)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            self._replace(worker, counts=True, why=str(error))
            return None
        return True if found is None else found

    def _replace(self, worker: "_Worker", *, counts: bool, why: str = "") -> None:
        """Replace a worker that is lost, or that does what nobody waits for.

        Raises:
            EngineError: More were lost than are replaced.
        """
        self._ray.kill(worker.actor)
        self._restarts += counts
        if self._restarts > self._cluster.worker_restarts:
            raise EngineError(
                f"Rollout workers were lost {self._restarts} times, and at most {self._cluster.worker_restarts} are "
                f"replaced (worker_restarts). The last one: {why[:1000]}"
            )
        if counts:
            notify(f"Rollout worker {worker.number + 1} is lost; another one takes its place. {why.splitlines()[0]}")
        worker.actor = self._make()
        self._starting[self._start(worker)] = worker

    def _of_all(self, method: str, *arguments: Any, **options: Any) -> list[Any]:
        """Return what every worker replies; one that is lost or starting replies once it is there."""
        replies: dict[int, Any] = {}
        asked: dict[Any, _Worker] = {}
        while len(replies) < len(self._workers):
            for worker in self._workers:
                if (
                    worker.number not in replies
                    and worker not in asked.values()
                    and worker not in self._starting.values()
                ):
                    asked[getattr(worker.actor, method).remote(*arguments, **options)] = worker
            for reply in self._look([*asked, *self._starting]):
                if (worker_ := asked.pop(reply, None)) is not None:
                    found = self._reply(worker_, reply)
                    if found is not None:
                        replies[worker_.number] = found
        return [replies[worker.number] for worker in self._workers]


class _Worker:
    """A place for a worker.

    Attributes:
        actor: Who has it now.
        number: Of the place.
    """

    def __init__(self, actor: Any, number: int) -> None:
        self.actor, self.number = actor, number


class RayPlayer:
    """Has workers play; see `Player`.

    Args:
        rollouts: Which.
        limits: Of what may go wrong.
        split: Of the environments.
        groups_at_once: Groups of a share; None for an equal part for each worker.
    """

    def __init__(self, rollouts: RayRollouts, limits: Limits, split: str | None, groups_at_once: int | None) -> None:
        self._rollouts, self._limits, self._split, self._groups_at_once = rollouts, limits, split, groups_at_once

    def collect(self, tasks: Sequence[Task], sampling: Sampling, seed: int = 0) -> list[Trajectory]:
        """Play one episode per task; see `Collector.collect`."""
        groups = len({task.group for task in tasks})
        size = self._groups_at_once or max(1, math.ceil(groups / self._rollouts.workers))
        played = self._rollouts.play(self._split, in_shares(numbered(tasks), size), sampling, seed)
        trajectories = [trajectory for share in played for trajectory in share]
        self._limits.count(trajectories)
        return trajectories

    def state_dict(self) -> dict[str, Any]:
        """Return how much went wrong so far."""
        return self._limits.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from what `state_dict` returned."""
        self._limits.load_state_dict(state)


def _as_array(weights: torch.Tensor) -> NDArray[Any]:
    """Return weights as Ray sends them without copying them once more; NumPy has no bfloat16, so its bits travel."""
    weights = weights.detach().cpu()
    array: NDArray[np.generic] = (weights.view(torch.int16) if weights.dtype == torch.bfloat16 else weights).numpy()
    return array

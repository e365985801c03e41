"""`RayWorkers`: rollout workers on Ray; what one that is lost had to do is done by another."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmgym.config.sections import Cluster
from llmgym.engines.base import Completion
from llmgym.errors import ConfigError, EngineError, UnknownNameError
from llmgym.report.console import notify
from llmgym.train.rollout_worker import RolloutWorker
from llmgym.workers.ray_session import RaySession

_ASIDE = "aside"  # a worker's second thread, which takes weights while the first one plays
_GLANCE = 0.2  # seconds in which Ray is waited for without looking up; a signal is heard in between


@dataclass(eq=False)
class Call:
    """Something that a worker has to do.

    Attributes:
        method: Of `RolloutWorker`.
        arguments: For it; an object in Ray's store arrives as what it is.
        place: The worker that has to do it; None for whoever is free.
        queues: Whether it may be given to a worker that is busy, which does it next.
        what: Which tasks it is about, in words; empty if it is about none.
        turn: Its place in the order of all that was submitted.
        losses: How many workers were lost while they did it.
        done: Whether there is a result.
        result: What the method has returned.
    """

    method: str
    arguments: Sequence[Any]
    place: int | None = None
    queues: bool = False
    what: str = ""
    turn: int = field(default=0, init=False)
    losses: int = field(default=0, init=False)
    done: bool = field(default=False, init=False)
    result: Any = field(default=None, init=False)


class RayWorkers:
    """A number of places, each with a worker.

    Args:
        session: The connection to Ray.
        cluster: How many workers, with what, and how many are replaced.
        packed: The blueprint that they are made from.
        log: File to append what they print to.

    Raises:
        ConfigError: Ray does not have what they take.
        Exception: What a worker raises at its start.
    """

    def __init__(self, session: RaySession, cluster: Cluster, packed: bytes, log: Path) -> None:
        self._ray, self._cluster, self._packed, self._log = session.ray, cluster, packed, log
        session.require(cluster.rollout_workers * cluster.worker_cpus, cluster.rollout_workers * cluster.worker_gpus)
        self._lost = self._submitted = 0
        self._stale: set[int] = set()  # places of workers that do what nobody waits for
        self._waiting: list[Call] = []
        self._under_way: dict[Any, tuple[int, Any, Call]] = {}  # by the reply: where, who, and what
        self._starting: dict[Any, int] = {}  # by the reply that says that it is ready: where
        self._actors = [self._make() for _ in range(cluster.rollout_workers)]
        for place in range(len(self._actors)):
            self._start(place)
        while self._starting:
            self._look()

    def __len__(self) -> int:
        return len(self._actors)

    def require_open(self) -> None:
        """Refuse to work after the end.

        Raises:
            EngineError: The workers were closed.
        """
        if not self._actors:
            raise EngineError("The rollout workers were closed: expected a new agent, to train or evaluate again.")

    def submit(self, calls: Sequence[Call]) -> None:
        """Have something done; returns at once."""
        self.require_open()
        for place in sorted(self._stale):
            self._replace(place)
        self._stale = set()
        for call in calls:
            call.turn = self._submitted = self._submitted + 1
        self._waiting += calls
        self._hand_out()

    def wait(self, calls: Sequence[Call]) -> list[Any]:
        """Return the results of calls that were submitted, in their order.

        Raises:
            EngineError: More workers were lost than are replaced.
            Exception: What a worker raises.
        """
        try:
            while not all(call.done for call in calls):
                self._hand_out()
                self._look()
        except BaseException:
            self.abandon()
            raise
        return [call.result for call in calls]

    def bring(self, *arguments: Any) -> list[list[list[Completion]]]:
        """Have every worker take weights now, whatever it does; return what each that is ready replies.

        A worker that is lost meanwhile is replaced when what it did is waited for.
        """
        self.require_open()
        if self._starting:
            self._look(seconds=0.0)
        ready = [place for place in range(len(self)) if place not in self._starting.values()]
        asked = [
            (place, self._actors[place].bring.options(concurrency_group=_ASIDE).remote(*arguments))
            for place in ready
            if place not in self._stale
        ]
        replies = []
        for place, reply in asked:
            try:
                replies.append(self._ray.get(reply))
            except self._ray.exceptions.RayTaskError as error:
                raise self._cause(place, error) from None
            except self._ray.exceptions.RayError:
                continue
        return replies

    def abandon(self) -> None:
        """Do nothing any more of what was submitted; who is busy with it is replaced when something else is."""
        self._stale |= {place for place, actor, _ in self._under_way.values() if actor is self._actors[place]}
        self._waiting, self._under_way = [], {}

    def close(self) -> None:
        """End all workers; closed again, do nothing."""
        actors, self._actors = self._actors, []
        for actor in actors:
            self._ray.kill(actor)

    def _hand_out(self) -> None:
        """Give what waits to workers that are ready: to one that is free, or to the least busy one if it queues."""
        for call in list(self._waiting):
            busy = [sum(place == where for where, *_ in self._under_way.values()) for place in range(len(self))]
            ready = [place for place in range(len(self)) if place not in self._starting.values()]
            fitting = [place for place in ready if call.place in (None, place) and (call.queues or not busy[place])]
            if fitting:
                place = min(fitting, key=busy.__getitem__)
                self._waiting.remove(call)
                actor = self._actors[place]
                self._under_way[getattr(actor, call.method).remote(*call.arguments)] = place, actor, call

    def _look(self, seconds: float = _GLANCE) -> None:
        """Take the replies that are there, after a glance."""
        for reply in self._ray.wait([*self._under_way, *self._starting], num_returns=1, timeout=seconds)[0]:
            if reply in self._starting:
                place = self._starting.pop(reply)
                try:
                    self._take(place, self._actors[place], reply, Call("start", ()))
                except (ConfigError, UnknownNameError) as error:
                    raise ConfigError(
                        f"Rollout worker {place + 1}: {error} Modules of yours and what they import have to be "
                        "installed on each machine of the cluster."
                        if self._cluster.ray_address
                        else f"Rollout worker {place + 1}: {error}"
                    ) from error
                continue
            place, actor, call = self._under_way.pop(reply)
            call.done, call.result = self._take(place, actor, reply, call)
            if not call.done:
                self._waiting = sorted([*self._waiting, call], key=lambda one: one.turn)  # older steps come first

    def _take(self, place: int, actor: Any, reply: Any, call: Call) -> tuple[bool, Any]:
        """Return whether a worker has replied, and what; one that is lost is replaced."""
        errors = self._ray.exceptions
        try:
            return True, self._ray.get(reply)
        except errors.RayTaskError as error:
            raise self._cause(place, error) from None
        except errors.TaskCancelledError as error:
            raise EngineError(f"Something in rollout worker {place + 1} interrupted it: {error}") from None
        except errors.RayError as error:
            if actor is self._actors[place]:  # else it is known already
                self._count(place, call, _reason(error))
                self._replace(place)
            return False, None

    def _cause(self, place: int, error: Any) -> Exception:
        """Return what a worker has raised."""
        if isinstance(error.cause, self._ray.exceptions.RayError):
            return EngineError(f"Rollout worker {place + 1} could not do its work: {error.cause}")
        cause: Exception = error.cause
        return cause

    def _count(self, place: int, call: Call, reason: str) -> None:
        """Count a worker that is lost.

        Raises:
            EngineError: More were lost than are replaced.
        """
        self._lost += 1
        call.losses += 1
        if self._lost > self._cluster.worker_restarts:
            again = (
                f" {call.losses} of them played {call.what}: an environment or a scorer may have ended the process, "
                "which --isolate-env and --scorer-workers turn into an episode without a score."
                if call.what and call.losses > 1
                else ""
            )
            raise EngineError(
                f"Rollout workers were lost {self._lost} times, and at most {self._cluster.worker_restarts} are "
                f"replaced (worker_restarts).{again} The last one: {reason}"
            )
        left = self._cluster.worker_restarts - self._lost
        notify(f"Rollout worker {place + 1} is lost; another one takes its place, and {left} more may. {reason}")

    def _replace(self, place: int) -> None:
        self._ray.kill(self._actors[place])
        self._starting = {reply: where for reply, where in self._starting.items() if where != place}
        self._actors[place] = self._make()
        self._start(place)

    def _make(self) -> Any:
        """Return a new worker, which may have to wait for a machine; Ray never repeats a call by itself."""
        cluster = self._cluster
        options: dict[str, Any] = {"num_cpus": cluster.worker_cpus, "num_gpus": cluster.worker_gpus}
        if cluster.weights_in_flight:
            options["concurrency_groups"] = {_ASIDE: 1}  # a thread besides the one that plays
        return self._ray.remote(**options, max_restarts=0, max_task_retries=0)(RolloutWorker).remote()

    def _start(self, place: int) -> None:
        """Have a worker get ready."""
        run = {
            "paths": [os.path.abspath(one) for one in sys.path],
            "directory": os.getcwd(),
            "log": str(self._log.absolute()),
            "threads": self._cluster.worker_cpus,
            "gpus": self._cluster.worker_gpus,
            "in_flight": self._cluster.weights_in_flight,
        }
        self._starting[self._actors[place].start.remote(self._ray.cloudpickle.loads, self._packed, run)] = place


def _reason(error: Exception) -> str:
    """Return what Ray says of a worker that is lost, without the numbers that it is known by."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    detail = next((line for line in lines if "exit detail" in line or "exit type" in line), "")
    said = f"{lines[0] if lines else type(error).__name__} {detail}".strip()
    return said.partition(" Some common causes include")[0][:500]

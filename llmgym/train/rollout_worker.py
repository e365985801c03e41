"""`RolloutWorker`: plays episodes in a process of its own, with the weights that it is given."""

import contextlib
import copy
import hashlib
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import torch
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from llmgym.config.sections import Cluster, OnlineConfig, Sampling
from llmgym.engines.base import Completion, GenerationRequest, TakesWeights, complete, taking_weights
from llmgym.engines.shared import SharedEngine
from llmgym.errors import EngineError
from llmgym.registry import load_env_creator
from llmgym.report.run_directory import versions
from llmgym.rollout.collector import Collector
from llmgym.rollout.task import Task
from llmgym.rollout.trajectory import Trajectory
from llmgym.scorers import AnyScorer, find_scorer, judges_alone
from llmgym.scorers.composition import put_on
from llmgym.scorers.names import adopt, named_in
from llmgym.train.actor import Actor
from llmgym.train.algorithm import OnlineAlgorithm, as_configured
from llmgym.train.local_rollouts import LocalRollouts
from llmgym.train.setting import set_up
from llmgym.train.tasks import RunRows

Weights = Mapping[str, NDArray[Any]]

_OF_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class WorkerConfig(OnlineConfig):
    """The sections of algorithms that play, whatever algorithm learns."""

    least_group: ClassVar[int] = 1


@dataclass(frozen=True)
class Blueprint:
    """What a rollout worker is made from, in any process.

    Attributes:
        options: Of the run, those that every algorithm that plays has.
        env: The registration of its environment, with its class in place of a name.
        scorer: The scorer as it was given.
        named: Registered scorers that it names.
        rows: What is played, for an environment that takes rows.
        sources: Hashes of the files that environment and scorer are from.
        versions: Of packages that numbers depend on.
    """

    options: Mapping[str, Any]
    env: EnvSpec
    scorer: Any
    named: Mapping[str, AnyScorer]
    rows: RunRows | None
    sources: Mapping[str, str]
    versions: Mapping[str, str | None]


def blueprint_of(algorithm: OnlineAlgorithm, actor: Actor) -> Blueprint:
    """Return what the workers of a run are made from."""
    assert algorithm.env_id is not None, "who plays has an environment"
    known, given = WorkerConfig().flat(), algorithm.given_scorer
    options = {name: value for name, value in algorithm.config.flat().items() if name in known}
    here = Cluster().flat()  # it has no workers of its own
    rows = actor.rows
    if rows is not None:
        training, held_out = (None if one is None else one.in_memory() for one in (rows.training, rows.held_out))
        rows = RunRows(training, held_out, rows.seed, rows.own)
    env, creator = copy.copy(gymnasium.spec(algorithm.env_id)), load_env_creator(algorithm.env_id)
    env.entry_point, env.vector_entry_point = creator, None
    return Blueprint(
        {**options, **here, "date": actor.codec.template.now},
        env,
        given,
        named_in(given) if isinstance(given, str) else {},
        rows,
        _sources(creator, given),
        versions(),
    )


def _sources(*things: object) -> dict[str, str]:
    """Return hashes of the files that functions and classes are from, by the names of their modules."""
    found = {}
    for thing in things:
        with contextlib.suppress(OSError, TypeError):  # it has no file, such as a cell of a notebook
            module = str(getattr(thing, "__module__", ""))
            if module != "__main__":  # it is sent as it is
                file = inspect.getsourcefile(thing)  # type: ignore[arg-type]  # TypeError, if it is no such thing
                found[module] = hashlib.sha256(Path(file or "").read_bytes()).hexdigest()
    return found


class RolloutWorker:
    """Plays episodes with an engine, environments and scorers of its own.

    It is made at once and gets ready in `start`, so that what goes wrong there is told as it is.
    """

    _actor: Actor
    _scorer: AnyScorer | None

    def start(self, load: Callable[[bytes], Blueprint], packed: bytes, place: Mapping[str, Any]) -> None:
        """Load the model, and make the engine.

        Args:
            load: Unpacks the blueprint.
            packed: The blueprint.
            place: Where the run is: ``paths`` that modules are imported from, the working ``directory``, a ``log`` for
                what is printed, the number of ``threads`` and ``gpus``, and whether weights come ``in_flight``.

        Raises:
            EngineError: Another version of a package or of the user's code is here than where the run is.
            LLMGymError: The model, an environment or the scorer cannot be made.
        """
        sys.path[:] = [*place["paths"], *(one for one in sys.path if one not in place["paths"])]
        if Path(place["directory"]).is_dir():
            os.chdir(place["directory"])
            _print_to(Path(place["log"]))
        for name in _OF_RANKS:  # a rank may have started Ray; the worker is none
            os.environ.pop(name, None)
        if not place["gpus"]:  # what others see is not for it
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["OMP_NUM_THREADS"] = str(place["threads"])
        torch.set_num_threads(place["threads"])
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # it is only read
        blueprint = load(packed)
        _require_same(blueprint)
        config = WorkerConfig.of(blueprint.options)
        gymnasium.registry.setdefault(blueprint.env.id, blueprint.env)
        adopt(blueprint.named)
        set_up(config)
        given = blueprint.scorer
        self._scorer = None if given is None else as_configured(find_scorer(given)(), config)
        self._actor = Actor(config, keeps_reference=False, plays=True, rows=blueprint.rows)
        self._rollouts = self._actor.rollouts = LocalRollouts(self._actor, in_flight=place["in_flight"])
        if self._scorer is not None:
            put_on(self._scorer, self._actor.model.device.type)
        with contextlib.closing(self._actor.make_envs(1)) as envs:
            if "frozen" in envs.seats:
                self._rollouts.keep_frozen()
        self._players: dict[str | None, Collector] = {}
        self._loaded = 0
        _ = self._rollouts.engine  # while there is one thread

    def _use(self, weights: Weights, load: int, version: int) -> None:
        """Sample with these weights from now on, if they are not those of the last load.

        Args:
            weights: By their names; those that nobody trains stay as they are.
            load: Counts whatever was handed over, so that weights of one version can be told apart.
            version: Of the weights, for replies.
        """
        engine = self._rollouts.engine
        if isinstance(engine, SharedEngine):
            if load > self._loaded:  # newer ones may have come since this was asked for
                self.bring(weights, load, version, [])
        elif load != self._loaded:
            self._load(weights, load, version, taking_weights(engine))

    def _load(self, weights: Weights, load: int, version: int, engine: TakesWeights) -> None:
        parameters = dict(self._actor.model.named_parameters())
        if missing := weights.keys() - parameters.keys():
            raise EngineError(f"A rollout worker is given weights that its model does not have: {sorted(missing)}.")
        with torch.no_grad():
            for name, value in weights.items():
                given = torch.from_numpy(value)
                own = parameters[name]
                own.copy_(given if given.dtype == own.dtype else given.view(own.dtype))
        engine.load_weights(self._actor.weights(), version)
        self._loaded = load

    def play(
        self,
        weights: Weights,
        load: int,
        version: int,
        split: str | None,
        tasks: Sequence[Task],
        places: int,
        sampling: Sampling,
        seed: int,
    ) -> list[Trajectory]:
        """Play one episode per task; see `Collector.play`.

        Args:
            weights: That sample.
            load: See `_use`.
            version: The same.
            split: Of the environments.
            tasks: With their numbers.
            places: Environments, if there are none yet.
            sampling: How.
            seed: Start of every reply's own seed.
        """
        self._use(weights, load, version)
        if split not in self._players:
            envs = self._actor.make_envs(places, split=split)
            scorer = self._scorer if split is None else judges_alone(self._scorer)
            self._players[split] = self._rollouts.player(envs, scorer, split=split)
        return self._players[split].play(tasks, sampling, seed)

    def probe(
        self, weights: Weights, load: int, version: int, requests: Sequence[GenerationRequest]
    ) -> list[list[Completion]]:
        """Return what the engine replies with these weights; see `Rollouts.probe`."""
        self._use(weights, load, version)
        return self._rollouts.probe(requests)

    def bring(
        self, weights: Weights, load: int, version: int, requests: Sequence[GenerationRequest]
    ) -> list[list[Completion]]:
        """Do what `probe` does, from another thread, in the middle of what is played."""
        engine = self._rollouts.engine
        assert isinstance(engine, SharedEngine), "only workers whose weights change in flight are brought any"
        with engine.between_steps() as alone:
            if load > self._loaded:
                self._load(weights, load, version, alone)
            return [complete(alone, requests)] if requests else []

    def require_training(self, log_probs: bool) -> None:
        """Refuse an engine that nothing can be learnt from; see `Rollouts.require_training`."""
        self._rollouts.require_training(log_probs=log_probs)


def _require_same(blueprint: Blueprint) -> None:
    """Refuse a place with other versions of packages or of the user's code."""
    here = {**versions(), **_sources(blueprint.env.entry_point, blueprint.scorer)}
    there = {**blueprint.versions, **blueprint.sources}
    other = [name for name in there if here.get(name) != there[name]]
    if other:
        known = blueprint.versions
        words = [f"{name} {here[name]} and not {known[name]}" if name in known else f"another {name}" for name in other]
        raise EngineError(
            f"A rollout worker has {', '.join(words)}: expected what the process that learns has, on every machine."
        )


def _print_to(log: Path) -> None:
    """Append what this process prints to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as opened:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(opened.fileno(), stream.fileno())

"""The generator: from a random source, one incident as a team on call would see it."""

import itertools
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from llmgym.envs.aiops.world import Difficulty, IncidentType, path_to
from llmgym.envs.splits import Split, split_of

Kind = Literal["symptom", "metric", "log", "trace"]


@dataclass(frozen=True, slots=True)
class Signal:
    """One observation: a line of the incident report.

    Attributes:
        tag: What replies cite it by, such as ``M1``.
        kind: Its section.
        service: The service it was seen on.
        phrase: The key of its wording in `phrases`.
        values: What fills the wording in.
        root: Whether it is a direct trace of the root cause.
    """

    tag: str
    kind: Kind
    service: str
    phrase: str
    values: tuple[int | str, ...]
    root: bool = False


@dataclass(frozen=True, slots=True)
class Incident:
    """A root cause and everything that shows of it."""

    service: str
    incident_type: str
    onset: int  # minutes after midnight
    signals: tuple[Signal, ...]

    def of_kind(self, kind: Kind) -> list[Signal]:
        """The signals of one section, in the order shown."""
        return [signal for signal in self.signals if signal.kind == kind]

    @property
    def split(self) -> Split:
        """The split this incident belongs to: a function of its content, so the splits are disjoint."""
        return split_of(repr(self))


def generate_incident(rng: np.random.Generator, difficulty: Difficulty, split: Split) -> Incident:
    """Draw an incident of the split.

    The root cause shows directly in one metric and one or two log lines of the service at
    fault, each of which may be missing at higher difficulties but never all of them. It
    cascades: services on the way from the gateway get slow or fail, and log time-outs of
    the service they call. The trace shows where the time is spent. Red herrings are older
    warnings of other incident types on services that are healthy.
    """
    while True:
        incident = _draw(rng, difficulty)
        if incident.split == split:
            return incident


def _draw(rng: np.random.Generator, difficulty: Difficulty) -> Incident:
    topology, types = difficulty.topology, difficulty.types
    service = str(rng.choice(difficulty.service_names))
    cause = types[rng.integers(len(types))]
    onset = int(rng.integers(60, 24 * 60 - 60))
    chain = path_to(service, topology)
    healthy = [name for name in topology if name != service]

    signals = _direct_signals(rng, difficulty, service, cause, onset)
    signals += _cascade(rng, difficulty, chain, onset)
    signals.append(_trace(rng, chain))
    signals += _healthy_metrics(rng, difficulty, healthy)
    signals += _red_herrings(rng, difficulty, healthy, cause, onset)
    return Incident(service, cause.name, onset, _tagged(rng, signals))


def _between(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    return int(rng.integers(bounds[0], bounds[1] + 1))


def _log(service: str, phrase: str, minute: int, level: str, *values: int | str, root: bool = False) -> Signal:
    return Signal("", "log", service, phrase, (minute, level, *values), root)


def _metric(rng: np.random.Generator, service: str, gauge: IncidentType, *, failing: bool) -> Signal:
    """A gauge's value now and its usual value, of a service that fails or does not."""
    usual = _between(rng, gauge.usual)
    now = _between(rng, gauge.failing if failing else gauge.usual)
    return Signal("", "metric", service, gauge.metric, (now, usual), root=failing)


def _direct_signals(
    rng: np.random.Generator, difficulty: Difficulty, service: str, cause: IncidentType, onset: int
) -> list[Signal]:
    """The failing gauge and one log line of the root cause; blurred, only one of the two."""
    line = str(rng.choice(cause.logs))
    metric = _metric(rng, service, cause, failing=True)
    log = _log(service, line, onset + _between(rng, (0, 3)), "ERROR", root=True)
    if rng.random() < difficulty.blurred:
        return [metric] if rng.random() < 0.5 else [log]
    return [metric, log]


def _cascade(rng: np.random.Generator, difficulty: Difficulty, chain: tuple[str, ...], onset: int) -> list[Signal]:
    """What the callers of the service at fault show: symptoms at the edge, time-outs on the way."""
    edge = chain[:2] if len(chain) > 1 else chain
    signals = []
    for name in edge:
        phrase = str(rng.choice(["slow", "failing"]))
        value = _between(rng, (12, 48)) if phrase == "slow" else _between(rng, (6, 40))
        signals.append(Signal("", "symptom", name, phrase, (value,)))
    calls = list(itertools.pairwise(chain))[::-1][: difficulty.downstream_logs]
    for caller, callee in calls:
        signals.append(_log(caller, "timeout_calling", onset + _between(rng, (1, 5)), "ERROR", callee))
    return signals


def _trace(rng: np.random.Generator, chain: tuple[str, ...]) -> Signal:
    """The slowest request: every service on the chain with the milliseconds until it answered."""
    spent = _between(rng, (15, 40)) * 100
    hops: list[int | str] = []
    for name in reversed(chain):
        hops = [name, spent, *hops]
        spent += _between(rng, (1, 9)) * 10
    return Signal("", "trace", chain[-1], "slowest", tuple(hops), root=True)


def _healthy_metrics(rng: np.random.Generator, difficulty: Difficulty, healthy: list[str]) -> list[Signal]:
    return [
        _metric(rng, str(rng.choice(healthy)), difficulty.types[rng.integers(difficulty.incident_types)], failing=False)
        for _ in range(difficulty.healthy_metrics)
    ]


def _red_herrings(
    rng: np.random.Generator, difficulty: Difficulty, healthy: list[str], cause: IncidentType, onset: int
) -> list[Signal]:
    others = [other for other in difficulty.types if other is not cause]
    return [
        _log(
            str(rng.choice(healthy)),
            str(rng.choice(others[rng.integers(len(others))].logs)),
            onset - _between(rng, (20, 55)),
            "WARN",
        )
        for _ in range(difficulty.red_herrings)
    ]


def _tagged(rng: np.random.Generator, signals: list[Signal]) -> tuple[Signal, ...]:
    """Shuffle each section, logs by their time, and number it: S1, M1, L1, T1."""
    shuffled = [signals[i] for i in rng.permutation(len(signals))]
    shuffled.sort(key=lambda signal: int(signal.values[0]) if signal.kind == "log" else 0)
    tagged = []
    for kind in ("symptom", "metric", "log", "trace"):
        section = [signal for signal in shuffled if signal.kind == kind]
        tagged += [replace(signal, tag=f"{kind[0].upper()}{i}") for i, signal in enumerate(section, 1)]
    return tuple(tagged)

"""The generator: from a random source, one incident as a team on call would see it."""

import functools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from llmgym.envs.aiops.diagnosis import Claim, leaves_one, services_left
from llmgym.envs.aiops.world import GAUGES, Cause, Difficulty, slow_services
from llmgym.envs.splits import Split, draw_in_split

Kind = Literal["symptom", "trace", "log", "metric"]


@dataclass(frozen=True, slots=True)
class Signal:
    """One observation of the incident report.

    Attributes:
        tag: What replies cite it by, such as ``M1``.
        kind: Its section.
        claim: What it says.
        phrase: The key of its wording in `phrases`.
        values: What fills the wording in.
    """

    tag: str
    kind: Kind
    claim: Claim
    phrase: str
    values: tuple[int | str, ...] = ()

    @property
    def service(self) -> str:
        """The service it was seen on."""
        return self.claim.service


@dataclass(frozen=True, slots=True)
class Incident:
    """A root cause and what is shown of it."""

    cause: Cause
    signals: tuple[Signal, ...]

    def of_kind(self, kind: Kind) -> list[Signal]:
        """The signals of one section, in the order shown."""
        return [signal for signal in self.signals if signal.kind == kind]

    @property
    def content(self) -> str:
        """What is claimed, which decides the split: two incidents that are solved alike are in the same."""
        return "\n".join(sorted(f"{signal.kind} {signal.claim}" for signal in self.signals))


def generate_incident(rng: np.random.Generator, difficulty: Difficulty, split: Split) -> Incident:
    """Draw an incident of the split whose signals leave exactly one cause.

    Every cause in play is as likely as any other. What is shown of it is drawn until it
    tells that cause apart. Symptoms, spans of requests that may have gone elsewhere, and log
    lines that may be older than the incident leave one service, or a few at the harder
    difficulties, of which the gauges of all but one fit no type. The gauges of the service at
    fault, which look no different from those of other services, tell the type.
    """
    return draw_in_split(functools.partial(_draw, difficulty), rng, split)


def _draw(difficulty: Difficulty, rng: np.random.Generator) -> Incident:
    kind = difficulty.types[rng.integers(len(difficulty.types))]
    cause = Cause(str(rng.choice(difficulty.service_names)), kind.name)
    answering, suspects = _answering(rng, difficulty, cause)
    fine = {signal.service for signal in answering if signal.claim.state == "fine"}
    while True:
        gauges = _metrics(rng, difficulty, cause, suspects, fine)
        if leaves_one((signal.claim for signal in (*answering, *gauges)), difficulty):
            return Incident(cause, tagged([*answering, *gauges]))


def _answering(rng: np.random.Generator, difficulty: Difficulty, cause: Cause) -> tuple[list[Signal], list[str]]:
    """Symptoms, spans and log lines, and the services that they leave, the one at fault first."""
    slow = slow_services(cause.service, difficulty.topology)
    while True:
        signals = [
            *_symptoms(rng, difficulty, slow),
            *_spans(rng, difficulty, slow),
            *_logs(rng, difficulty, slow),
        ]
        claims = [signal.claim for signal in signals]
        again = difficulty.fault_hidden if Claim(cause.service, "slow") in claims else difficulty.fault_seen
        left = services_left(claims, difficulty)
        if rng.random() >= again and len(left) <= difficulty.suspects:
            return signals, sorted(left, key=lambda name: name != cause.service)


def _symptoms(rng: np.random.Generator, difficulty: Difficulty, slow: frozenset[str]) -> list[Signal]:
    """Whether some services answer more slowly than usual."""
    seen = rng.choice(difficulty.service_names, difficulty.symptoms, replace=False)
    return [
        Signal("", "symptom", Claim(name, "slow"), "slow", (_between(rng, (6, 40)),))
        if name in slow
        else Signal("", "symptom", Claim(name, "fine"), "fine")
        for name in map(str, seen)
    ]


def _spans(rng: np.random.Generator, difficulty: Difficulty, slow: frozenset[str]) -> list[Signal]:
    """Calls within sampled requests, with the time until they were answered."""
    calls = [(caller, callee) for caller, callees in difficulty.topology.items() for callee in callees]
    signals = []
    for i in rng.choice(len(calls), difficulty.spans, replace=False):
        caller, callee = calls[i]
        usual = _between(rng, (2, 18)) * 5
        took = _between(rng, (16, 48)) * 100 if callee in slow else usual + _between(rng, (-1, 3))
        claim = Claim(callee, "slow" if callee in slow else "fine")
        signals.append(Signal("", "trace", claim, "call", (took, usual, caller)))
    return signals


def _logs(rng: np.random.Generator, difficulty: Difficulty, slow: frozenset[str]) -> list[Signal]:
    """Lines of services that complain, complained before the incident, or do well; by time."""
    signals = []
    for name in map(str, rng.choice(difficulty.service_names, difficulty.logs, replace=False)):
        if rng.random() < 0.4:
            claim, minute = Claim(name, "earlier"), -_between(rng, (20, 59))
        elif name in slow:
            claim, minute = Claim(name, "slow"), _between(rng, (1, 9))
        else:
            claim, minute = Claim(name, "fine"), _between(rng, (1, 9))
        phrases, level = (
            (_ALL_IS_WELL, "INFO") if claim.state == "fine" else (_COMPLAINTS, str(rng.choice(["WARN", "ERROR"])))
        )
        signals.append(Signal("", "log", claim, str(rng.choice(phrases)), (f"{minute:+d}", level)))
    return sorted(signals, key=lambda signal: int(signal.values[0]))


_COMPLAINTS: tuple[str, ...] = ("timeouts", "deadline", "backlog", "retries")
_ALL_IS_WELL: tuple[str, ...] = ("healthy", "on_time")


def _metrics(
    rng: np.random.Generator, difficulty: Difficulty, cause: Cause, suspects: Sequence[str], fine: Collection[str]
) -> list[Signal]:
    """Gauges of the service at fault, of other suspects, which fit no type, and of others, which look as if at fault.

    Services that are reported to be fine are shown less often than others: nobody looks at their gauges.
    """
    others = [name for name in difficulty.service_names if name not in suspects]
    drawn = [others[i] for i in _some(rng, len(others), len(others))]
    rows = [*suspects, *sorted(drawn, key=lambda name: name in fine and rng.random() < difficulty.overlooked)][
        : difficulty.rows
    ]
    signals = []
    for name in (rows[i] for i in rng.permutation(len(rows))):
        if name == cause.service:
            shown = _shown(rng, difficulty)
            raised: Collection[str] = difficulty.type_named(cause.incident_type).gauges
        else:
            shown, raised = _decoy(rng, difficulty, fits=name not in suspects)
        for gauge in (GAUGES[one] for one in shown):
            high = gauge.name in raised
            usual = _between(rng, gauge.usual)
            now = _between(rng, gauge.raised) if high else max(0, usual + _between(rng, (-2, 2)))
            claim = Claim(name, "high" if high else "normal", gauge.name)
            signals.append(Signal("", "metric", claim, gauge.name, (now, usual)))
    return signals


def _decoy(rng: np.random.Generator, difficulty: Difficulty, *, fits: bool) -> tuple[list[str], Collection[str]]:
    """Draw which gauges of a service are shown, and which of them are raised: as by one type alone, or as by none."""
    while True:
        shown = _shown(rng, difficulty)
        if fits:
            raised = set(shown).intersection(difficulty.types[rng.integers(len(difficulty.types))].gauges)
        else:
            raised = {name for name in shown if rng.random() < 0.5}
        alike = sum(raised == set(shown).intersection(kind.gauges) for kind in difficulty.types)
        if alike == int(fits):
            return shown, raised


def _shown(rng: np.random.Generator, difficulty: Difficulty) -> list[str]:
    names = difficulty.gauge_names
    return [names[i] for i in sorted(_some(rng, len(names), difficulty.gauges))]


def _some(rng: np.random.Generator, of: int, count: int) -> list[int]:
    return [int(i) for i in rng.choice(of, count, replace=False)]


def _between(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    return int(rng.integers(bounds[0], bounds[1] + 1))


def tagged(signals: Iterable[Signal]) -> tuple[Signal, ...]:
    """Return signals with tags that number them within their section: S1, T1, L1, M1."""
    numbers: dict[Kind, int] = {}
    tagged = []
    for signal in signals:
        numbers[signal.kind] = numbers.get(signal.kind, 0) + 1
        tagged.append(replace(signal, tag=f"{signal.kind[0].upper()}{numbers[signal.kind]}"))
    return tuple(tagged)

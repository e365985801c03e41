"""The world of the triage task: services that call each other, and what can go wrong with them.

One service is at fault. It is slow, and so is every service that calls it, directly or
through others; all others answer as usual. The incident raises exactly two gauges of the
service at fault, and no others of it. Gauges of other services may be raised as well. So a
service whose gauges fit no type is not at fault, and one whose gauges fit a type may be fine.
"""

import functools
from dataclasses import dataclass

TOPOLOGY: dict[str, tuple[str, ...]] = {
    "gateway": ("checkout", "catalog", "auth"),
    "checkout": ("payments", "shipping"),
    "catalog": ("search", "database", "cache"),
    "auth": ("database", "cache"),
    "payments": ("database",),
    "shipping": ("database", "queue"),
    "search": ("cache",),
    "database": (),
    "cache": (),
    "queue": (),
}
"""Every service and the services it calls, callers first. Requests come in at the gateway."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """What is measured of every service.

    Attributes:
        name: A key of `phrases.GAUGES`.
        usual: Its range where nothing is wrong, in its unit.
        raised: Its range where it is raised; far above `usual`.
    """

    name: str
    usual: tuple[int, int]
    raised: tuple[int, int]


GAUGES: dict[str, Gauge] = {
    gauge.name: gauge
    for gauge in (
        Gauge("cpu", (15, 55), (88, 99)),
        Gauge("heap", (25, 60), (90, 99)),
        Gauge("disk", (10, 50), (85, 99)),
        Gauge("pool", (10, 55), (92, 99)),
        Gauge("errors", (1, 6), (60, 240)),
        Gauge("retransmits", (1, 3), (14, 40)),
    )
}


@dataclass(frozen=True, slots=True)
class IncidentType:
    """One way to fail.

    Attributes:
        name: The answer expected in round 2.
        gauges: The two gauges of the service at fault that it raises.
    """

    name: str
    gauges: tuple[str, str]


INCIDENT_TYPES: tuple[IncidentType, ...] = (
    IncidentType("memory_leak", ("cpu", "heap")),
    IncidentType("swapping", ("heap", "disk")),
    IncidentType("slow_storage", ("disk", "pool")),
    IncidentType("thread_starvation", ("cpu", "pool")),
    IncidentType("log_flood", ("cpu", "disk")),
    IncidentType("connection_leak", ("heap", "pool")),
    IncidentType("bad_deploy", ("cpu", "errors")),
    IncidentType("disk_full", ("disk", "errors")),
    IncidentType("pool_exhausted", ("pool", "errors")),
    IncidentType("out_of_memory", ("heap", "errors")),
    IncidentType("packet_loss", ("pool", "retransmits")),
    IncidentType("dns_failure", ("errors", "retransmits")),
)
"""Every incident type. No two raise the same gauges, and every gauge belongs to several."""


@dataclass(frozen=True, slots=True)
class Cause:
    """A possible answer: a service at fault and what is wrong with it."""

    service: str
    incident_type: str


@dataclass(frozen=True)
class Difficulty:
    """How large the world is, and how much of it is shown.

    Attributes:
        service_names: Services in play, callers first.
        incident_types: Incident types in play, the first of `INCIDENT_TYPES`.
        symptoms: Services of which customers tell.
        spans: Spans of sampled requests.
        logs: Log lines.
        rows: Services whose gauges are shown, the one at fault among them.
        gauges: Gauges shown of each.
        suspects: Services that symptoms, spans and log lines leave, at most.
        overlooked: Probability that a service which is reported to be fine comes last where gauges are shown.
        fault_seen: Probability that an incident is drawn again if it does not show the service at
            fault to be slow, so that it has to be found by exclusion.
        fault_hidden: The same if it does.
    """

    service_names: tuple[str, ...]
    incident_types: int
    symptoms: int
    spans: int
    logs: int
    rows: int
    gauges: int
    suspects: int
    overlooked: float
    fault_seen: float
    fault_hidden: float

    @functools.cached_property
    def topology(self) -> dict[str, tuple[str, ...]]:
        """The services in play and those of the services they call that are in play."""
        names = self.service_names
        return {name: tuple(callee for callee in TOPOLOGY[name] if callee in names) for name in names}

    @functools.cached_property
    def types(self) -> tuple[IncidentType, ...]:
        """The incident types in play."""
        return INCIDENT_TYPES[: self.incident_types]

    def type_named(self, name: str) -> IncidentType:
        """The incident type of that name."""
        return next(kind for kind in self.types if kind.name == name)

    @functools.cached_property
    def gauge_names(self) -> tuple[str, ...]:
        """The gauges that an incident type in play raises."""
        return tuple(name for name in GAUGES if any(name in kind.gauges for kind in self.types))

    @functools.cached_property
    def causes(self) -> tuple[Cause, ...]:
        """Every possible answer."""
        return tuple(Cause(service, kind.name) for service in self.service_names for kind in self.types)


DIFFICULTIES: tuple[Difficulty, ...] = (
    Difficulty(
        ("gateway", "checkout", "payments", "database"), 4,
        symptoms=2, spans=1, logs=1, rows=2, gauges=4, suspects=1, overlooked=0.6, fault_seen=1.0, fault_hidden=0.0,
    ),
    Difficulty(
        ("gateway", "checkout", "catalog", "auth", "payments", "database"), 6,
        symptoms=2, spans=2, logs=2, rows=3, gauges=3, suspects=1, overlooked=0.6, fault_seen=1.0, fault_hidden=0.0,
    ),
    Difficulty(
        ("gateway", "checkout", "catalog", "auth", "payments", "shipping", "database", "cache"), 9,
        symptoms=3, spans=2, logs=3, rows=5, gauges=4, suspects=2, overlooked=1.0, fault_seen=0.0, fault_hidden=0.85,
    ),
    Difficulty(
        tuple(TOPOLOGY), 12,
        symptoms=3, spans=3, logs=4, rows=6, gauges=4, suspects=3, overlooked=1.0, fault_seen=0.0, fault_hidden=0.8,
    ),
)  # fmt: skip
"""What `difficulty` 0 to 3 stands for: 16, 36, 72 and 120 possible answers."""


def slow_services(fault: str, topology: dict[str, tuple[str, ...]]) -> frozenset[str]:
    """Return `fault` and every service that calls it, directly or through others.

    Args:
        fault: A service of the topology.
        topology: Services and what they call, callers first.
    """
    slow = {fault}
    for name in reversed(topology):
        if slow.intersection(topology[name]):
            slow.add(name)
    return frozenset(slow)

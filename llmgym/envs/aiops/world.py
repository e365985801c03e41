"""The world of the triage task: services that depend on each other, and what can go wrong with them.

Both tables are ordered: a difficulty puts the first so many rows in play, and every
prefix of the topology is connected.
"""

from dataclasses import dataclass

TOPOLOGY: dict[str, tuple[str, ...]] = {
    "gateway": ("checkout", "catalog", "auth"),
    "checkout": ("payments", "shipping"),
    "catalog": ("database", "cache", "search"),
    "payments": ("database",),
    "database": (),
    "auth": ("database", "cache"),
    "cache": (),
    "shipping": ("database", "queue"),
    "queue": (),
    "search": (),
}
"""Every service and the services it calls. Requests come in at the gateway."""


@dataclass(frozen=True, slots=True)
class IncidentType:
    """One way to fail, and the traces it leaves in the failing service itself.

    Attributes:
        name: The answer expected in round 2.
        metric: The gauge that shows it; a key of `phrases.METRICS`.
        usual: The gauge's range on a healthy service, in its unit.
        failing: Its range on a failing one; the two do not overlap.
        logs: The lines it writes; keys of `phrases.LOGS`.
    """

    name: str
    metric: str
    usual: tuple[int, int]
    failing: tuple[int, int]
    logs: tuple[str, ...]


INCIDENT_TYPES: tuple[IncidentType, ...] = (
    IncidentType("cpu_saturation", "cpu", (20, 45), (93, 99), ("threads_starved", "cores_busy", "loop_blocked")),
    IncidentType("memory_leak", "heap", (35, 60), (94, 99), ("full_gc", "oom_killed", "alloc_failed")),
    IncidentType("disk_full", "disk", (30, 65), (98, 100), ("no_space", "rotate_failed", "volume_full")),
    IncidentType("pool_exhausted", "pool", (10, 55), (99, 100), ("no_connection", "all_in_use", "checkout_timeout")),
    IncidentType("packet_loss", "retransmits", (0, 1), (12, 35), ("peer_reset", "retransmit_burst", "read_stalled")),
    IncidentType("bad_deploy", "exceptions", (0, 3), (80, 240), ("null_pointer", "unknown_field", "flag_missing")),
    IncidentType(
        "cert_expired", "tls_failures", (0, 1), (40, 90), ("cert_not_valid", "handshake_refused", "tls_alert")
    ),
    IncidentType("dns_failure", "lookup_errors", (0, 1), (30, 95), ("no_such_host", "servfail", "lookup_timeout")),
    IncidentType("lock_contention", "lock_wait", (1, 9), (800, 4000), ("deadlock", "lock_timeout", "row_lock")),
    IncidentType(
        "traffic_surge", "requests", (90, 300), (2000, 6000), ("shedding_load", "too_many_requests", "backlog_full")
    ),
    IncidentType(
        "config_error", "reload_failures", (0, 1), (15, 60), ("invalid_value", "missing_variable", "reload_failed")
    ),
    IncidentType(
        "clock_skew", "clock_offset", (0, 5), (900, 5000), ("token_in_future", "ntp_unsynced", "timestamp_refused")
    ),
)
"""Every incident type. No metric and no log line belongs to two of them."""


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How large the world is, and how much of what is shown leads nowhere.

    Attributes:
        services: Services in play, the first of `TOPOLOGY`.
        incident_types: Incident types in play, the first of `INCIDENT_TYPES`.
        healthy_metrics: Gauges shown that are as usual.
        red_herrings: Log lines of an incident type on a service that is not at fault.
        downstream_logs: Log lines of dependents, at most.
        blurred: Probability that one of the root's two direct signals, its metric or its
            log line, is not shown.
    """

    services: int
    incident_types: int
    healthy_metrics: int
    red_herrings: int
    downstream_logs: int
    blurred: float

    @property
    def service_names(self) -> tuple[str, ...]:
        """The services in play."""
        return tuple(TOPOLOGY)[: self.services]

    @property
    def topology(self) -> dict[str, tuple[str, ...]]:
        """The services in play and those of their dependencies that are in play."""
        names = self.service_names
        return {name: tuple(d for d in TOPOLOGY[name] if d in names) for name in names}

    @property
    def types(self) -> tuple[IncidentType, ...]:
        """The incident types in play."""
        return INCIDENT_TYPES[: self.incident_types]


DIFFICULTIES: tuple[Difficulty, ...] = (
    Difficulty(services=4, incident_types=4, healthy_metrics=1, red_herrings=0, downstream_logs=1, blurred=0.0),
    Difficulty(services=6, incident_types=6, healthy_metrics=2, red_herrings=1, downstream_logs=1, blurred=0.0),
    Difficulty(services=8, incident_types=9, healthy_metrics=3, red_herrings=2, downstream_logs=2, blurred=0.3),
    Difficulty(services=10, incident_types=12, healthy_metrics=5, red_herrings=3, downstream_logs=3, blurred=0.5),
)
"""What `difficulty` 0 to 3 stands for: 16, 36, 72 and 120 possible answers."""


def path_to(service: str, topology: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the shortest chain of calls from the gateway to `service`, both included.

    Args:
        service: A service of the topology.
        topology: Services and what they call; every service is reachable from the gateway.
    """
    chains: list[tuple[str, ...]] = [("gateway",)]
    for chain in chains:  # breadth first: the list grows while it is read
        if chain[-1] == service:
            return chain
        chains += [(*chain, callee) for callee in topology[chain[-1]]]
    raise ValueError(f"{service!r} is not reachable from the gateway in {topology}.")

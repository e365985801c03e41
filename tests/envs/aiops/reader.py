"""A reader of round 1's text alone, written apart from the generator: it tries every possible cause."""

import re

_SPAN = re.compile(r"T\d+ (\w+) (\d+) ms, usually (\d+) ms, called by \w+")
_SYMPTOM = re.compile(r"S\d+ (\w+) answers (as usual|\d+ times slower)")
_LOG = re.compile(r"L\d+ (\w+) ([+-]\d+) min (INFO|WARN|ERROR) .+")
_GAUGE = re.compile(r"M\d+ (\w+) (\d+)\S* \((\d+)\S*\)")


def read(text: str) -> list[tuple[str, str]]:
    """Return every service and incident type that agree with all that English text shows."""
    calls = {
        service: [callee for callee in callees.split(", ") if callee]
        for service, _, callees in (
            one.partition(" > ") for one in _after(text, "Services and what they call").split("; ")
        )
    }
    raises = {
        name: set(gauges.split(", "))
        for name, _, gauges in (
            one.partition(" > ") for one in _after(text, "Incident types and the gauges they raise").split("; ")
        )
    }
    slow, gauges = _states(text)
    return [
        (service, name)
        for service in calls
        for name, raised in raises.items()
        if all(was == (service in _below(one, calls)) for one, was in slow)
        and all(high == (gauge in raised) for one, gauge, high in gauges if one == service)
    ]


def _after(text: str, title: str) -> str:
    return next(line.removeprefix(f"{title}: ") for line in text.splitlines() if line.startswith(title))


def _below(service: str, calls: dict[str, list[str]]) -> set[str]:
    """A service and all that it calls, directly or not: it waits for each of them."""
    return {service}.union(*(_below(callee, calls) for callee in calls[service]))


def _states(text: str) -> tuple[list[tuple[str, bool]], list[tuple[str, str, bool]]]:
    """Services and whether they are slow; gauges of services and whether they are raised."""
    slow: list[tuple[str, bool]] = []
    gauges: list[tuple[str, str, bool]] = []
    for line in text.splitlines():
        if span := _SPAN.fullmatch(line):
            slow.append((span[1], int(span[2]) > 5 * int(span[3])))
        elif symptom := _SYMPTOM.fullmatch(line):
            slow.append((symptom[1], symptom[2] != "as usual"))
        elif log := _LOG.fullmatch(line):
            if int(log[2]) >= 0:
                slow.append((log[1], log[3] != "INFO"))
        elif row := re.fullmatch(r"(\w+): (M\d+ .+)", line):
            for one in row[2].split("; "):
                gauge = _GAUGE.fullmatch(one)
                assert gauge, one
                gauges.append((row[1], gauge[1], int(gauge[2]) - int(gauge[3]) > 10))
    return slow, gauges

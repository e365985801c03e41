"""From an incident to the text that the team on call reads."""

import itertools

from llmgym.envs.aiops import phrases
from llmgym.envs.aiops.incident import Incident, Kind, Signal
from llmgym.envs.aiops.phrases import Language
from llmgym.envs.aiops.world import Difficulty


def round_1_message(incident: Incident, difficulty: Difficulty, language: Language) -> str:
    """Return the first observation: the rules of round 1, the world in play and the report."""
    return phrases.ROUND_1[language].format(
        rules=phrases.RULES[language], world=world(difficulty, language), report=report(incident, language)
    )


def world(difficulty: Difficulty, language: Language) -> str:
    """Return the services in play and what they call, and the incident types and what they raise."""
    return phrases.WORLD[language].format(
        services="; ".join(
            f"{name} > {', '.join(callees)}" if callees else name for name, callees in difficulty.topology.items()
        ),
        types="; ".join(f"{kind.name} > {', '.join(kind.gauges)}" for kind in difficulty.types),
    )


def report(incident: Incident, language: Language) -> str:
    """Return the signals in their sections, each after its tag: one per line, or a service's gauges in one."""
    return "\n".join(section(incident, kind, language) for kind in phrases.SECTIONS)


def section(incident: Incident, kind: Kind, language: Language) -> str:
    """Return the signals of one kind under their title."""
    if kind == "metric":
        lines = [
            phrases.ROW[language].format(
                service=service, gauges="; ".join(f"{signal.tag} {describe(signal, language)}" for signal in row)
            )
            for service, row in rows(incident).items()
        ]
    else:
        lines = [f"{signal.tag} {describe(signal, language)}" for signal in incident.of_kind(kind)]
    return "\n".join([f"{phrases.SECTIONS[kind][language]}:", *lines])


def rows(incident: Incident) -> dict[str, list[Signal]]:
    """Return the gauges that are shown of each service, in the order shown."""
    grouped = itertools.groupby(incident.of_kind("metric"), key=lambda signal: signal.service)
    return {service: list(row) for service, row in grouped}


def describe(signal: Signal, language: Language) -> str:
    """Return one signal in words, without its tag; a gauge without its service."""
    wordings = {
        "symptom": phrases.SYMPTOMS,
        "trace": phrases.TRACES,
        "log": phrases.LOGS,
        "metric": phrases.GAUGES,
    }[signal.kind]
    return wordings[signal.phrase][language].format(*signal.values, service=signal.service)

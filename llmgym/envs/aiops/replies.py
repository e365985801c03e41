"""What can be replied in a triage: reasoning that cites what counts, the answer, and mistakes that are near."""

from collections.abc import Sequence

import numpy as np

from llmgym.envs.aiops.diagnosis import services_left, smallest_set
from llmgym.envs.aiops.incident import Incident, Signal
from llmgym.envs.aiops.phrases import CONCLUDING, FURTHEST, OR, ROW, STATES, TELLING, Language
from llmgym.envs.aiops.report import rows
from llmgym.envs.aiops.world import Cause, Difficulty

MISTAKES = {"service": 0.3, "incident_type": 0.3, "both": 0.25, "form": 0.1, "early": 0.05}
"""How often a mistake is which: a wrong name, two, another form than was asked for, or a premature conclusion."""


def reason(incident: Incident, suspects: Sequence[str], telling: Sequence[Signal], language: Language) -> str:
    """Say which services are slow, go on to the gauges of those that can be furthest down, and cite what tells.

    Args:
        incident: What is shown.
        suspects: The services that can be at fault by all but the gauges, see `suspected`.
        telling: The signals to cite, see `telling_signals`; the rows of their gauges are read, too.
        language: Of the reply.
    """
    read = {*suspects, *(signal.service for signal in telling if signal.kind == "metric")}
    lines = read_services(incident, suspects, language)
    lines += [read_row(service, row, language) for service, row in rows(incident).items() if service in read]
    lines.append(TELLING[language].format(tags=" ".join(f"[{signal.tag}]" for signal in telling)))
    return "\n".join(lines)


def telling_signals(incident: Incident, difficulty: Difficulty) -> list[Signal]:
    """Return as few signals as tell the cause apart."""
    chosen = smallest_set([signal.claim for signal in incident.signals], difficulty)
    return [incident.signals[i] for i in chosen]


def suspected(incident: Incident, difficulty: Difficulty) -> list[str]:
    """Return the services that can be at fault by the symptoms, spans and log lines."""
    return services_left([signal.claim for signal in incident.signals if signal.kind != "metric"], difficulty)


def read_services(incident: Incident, suspects: Sequence[str], language: Language) -> list[str]:
    """Say what the symptoms, spans and log lines tell of their services, and which can be slow and furthest down."""
    told = [signal for signal in incident.signals if signal.kind != "metric"]
    return [
        *(f"{signal.tag} {signal.service} {STATES[signal.claim.state][language]}" for signal in told),
        FURTHEST[language].format(service=OR[language].join(suspects)),
    ]


def read_row(service: str, row: list[Signal], language: Language) -> str:
    """Say which gauges of a service are high and which are normal."""
    gauges = "; ".join(f"{signal.tag} {signal.claim.gauge} {STATES[signal.claim.state][language]}" for signal in row)
    return ROW[language].format(service=service, gauges=gauges)


def answer(service: str, incident_type: str) -> str:
    """Return the JSON that round 2 asks for."""
    return f'{{"service": "{service}", "incident_type": "{incident_type}"}}'


def bystander(rng: np.random.Generator, incident: Incident) -> str:
    """Return a service that shows signals and is not at fault, the more likely the more it shows."""
    return str(rng.choice([one.service for one in incident.signals if one.service != incident.cause.service]))


def other_type(rng: np.random.Generator, cause: Cause, difficulty: Difficulty) -> str:
    """Return an incident type in play that it is not."""
    return str(rng.choice([kind.name for kind in difficulty.types if kind.name != cause.incident_type]))


def mistaken(
    rng: np.random.Generator, reasoning: str, incident: Incident, difficulty: Difficulty, language: Language
) -> tuple[str, str]:
    """Return replies to both rounds that look right and are not; see `MISTAKES`.

    Args:
        rng: The source of all randomness.
        reasoning: A good reply to round 1, kept unless the mistake is a premature conclusion.
        incident: What really happened.
        difficulty: The names in play.
        language: Of the reply to round 1.
    """
    service, incident_type = incident.cause.service, incident.cause.incident_type
    mistake = str(rng.choice(list(MISTAKES), p=list(MISTAKES.values())))
    right = answer(service, incident_type)
    if mistake == "early":
        return f"{reasoning}\n{CONCLUDING[language].format(service=service, type=incident_type)}", right
    if mistake == "form":
        forms = [
            f"Answer: {right}",
            f"{right}\n{right}",
            f'{{"service": "{service}"}}',
            f"{service}, {incident_type}",
            answer(service, incident_type.replace("_", "-").upper()),
            answer(service, "unknown"),
        ]
        return reasoning, str(rng.choice(forms))
    if mistake in ("service", "both"):
        service = bystander(rng, incident)
    if mistake in ("incident_type", "both"):
        incident_type = other_type(rng, incident.cause, difficulty)
    return reasoning, answer(service, incident_type)

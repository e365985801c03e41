"""What can be replied in a triage: reasoning that cites what counts, the answer, and mistakes that are near."""

from collections.abc import Sequence

import numpy as np

from llmgym.envs.aiops.replies import MISTAKES, answer
from llmgym.envs.incidents.diagnosis import smallest_set
from llmgym.envs.incidents.incident import Incident, Signal
from llmgym.envs.incidents.phrases import CONCLUDING, FURTHEST, ROW, STATES, TELLING, Language
from llmgym.envs.incidents.report import rows
from llmgym.envs.incidents.world import Cause, Difficulty


def reason(incident: Incident, telling: Sequence[Signal], language: Language) -> str:
    """Say which services are slow, go on to the gauges of the one furthest down, and cite what tells it apart.

    Args:
        incident: What is shown.
        telling: The signals to cite, see `telling_signals`; the rows of their gauges are read, too.
        language: Of the reply.
    """
    fault = incident.cause.service
    read = {fault, *(signal.service for signal in telling if signal.kind == "metric")}
    lines = [
        f"{signal.tag} {signal.service} {STATES[signal.claim.state][language]}"
        for signal in incident.signals
        if signal.kind != "metric"
    ]
    lines.append(FURTHEST[language].format(service=fault))
    lines += [read_row(service, row, language) for service, row in rows(incident).items() if service in read]
    lines.append(TELLING[language].format(tags=" ".join(f"[{signal.tag}]" for signal in telling)))
    return "\n".join(lines)


def telling_signals(incident: Incident, difficulty: Difficulty) -> list[Signal]:
    """Return as few signals as tell the cause apart."""
    chosen = smallest_set([signal.claim for signal in incident.signals], difficulty)
    return [incident.signals[i] for i in chosen]


def read_row(service: str, row: list[Signal], language: Language) -> str:
    """Say which gauges of a service are high and which are normal."""
    gauges = "; ".join(f"{signal.tag} {signal.claim.gauge} {STATES[signal.claim.state][language]}" for signal in row)
    return ROW[language].format(service=service, gauges=gauges)


def bystander(rng: np.random.Generator, incident: Incident) -> str:
    """Return a service that shows signals and is not at fault, the more likely the more it shows."""
    return str(rng.choice([one.service for one in incident.signals if one.service != incident.cause.service]))


def other_type(rng: np.random.Generator, cause: Cause, difficulty: Difficulty) -> str:
    """Return an incident type in play that it is not."""
    return str(rng.choice([kind.name for kind in difficulty.types if kind.name != cause.incident_type]))


def mistaken(
    rng: np.random.Generator, reasoning: str, incident: Incident, difficulty: Difficulty, language: Language
) -> tuple[str, str]:
    """Return replies to both rounds that look right and are not; see `aiops.replies.MISTAKES`.

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

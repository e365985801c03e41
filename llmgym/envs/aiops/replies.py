"""What can be replied in a triage: reasoning that cites what counts, the answer, and mistakes that are near."""

import numpy as np

from llmgym.envs.aiops.incident import Incident
from llmgym.envs.aiops.phrases import CONCLUDING, Language
from llmgym.envs.aiops.report import cite
from llmgym.envs.aiops.world import Difficulty

MISTAKES = {"service": 0.3, "incident_type": 0.3, "both": 0.25, "form": 0.1, "early": 0.05}
"""How often a mistake is which: a wrong name, two, another form than was asked for, or a premature conclusion."""


def reason(rng: np.random.Generator, incident: Incident, language: Language) -> str:
    """Cite three or four signals: the direct traces in any order, then others."""
    signals = [incident.signals[i] for i in rng.permutation(len(incident.signals))]
    signals.sort(key=lambda signal: not signal.root)
    cited = signals[: rng.integers(3, 5)]
    return "\n".join(cite(signal, language) for signal in cited)


def answer(service: str, incident_type: str) -> str:
    """Return the JSON that round 2 asks for."""
    return f'{{"service": "{service}", "incident_type": "{incident_type}"}}'


def bystander(rng: np.random.Generator, incident: Incident) -> str:
    """Return a service that shows signals and is not at fault, the more likely the more it shows."""
    return str(rng.choice([signal.service for signal in incident.signals if signal.service != incident.service]))


def other_type(rng: np.random.Generator, incident: Incident, difficulty: Difficulty) -> str:
    """Return an incident type in play that it is not."""
    return str(rng.choice([cause.name for cause in difficulty.types if cause.name != incident.incident_type]))


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
    service, cause = incident.service, incident.incident_type
    mistake = str(rng.choice(list(MISTAKES), p=list(MISTAKES.values())))
    if mistake == "early":
        return f"{reasoning}\n{CONCLUDING[language].format(service=service, type=cause)}", answer(service, cause)
    if mistake == "form":
        right = answer(service, cause)
        forms = [
            f"Answer: {right}",
            f"{right}\n{right}",
            f'{{"service": "{service}"}}',
            f"{service}, {cause}",
            answer(service, cause.replace("_", " ")),
            answer(service, "unknown"),
        ]
        return reasoning, str(rng.choice(forms))
    if mistake in ("service", "both"):
        service = bystander(rng, incident)
    if mistake in ("incident_type", "both"):
        cause = other_type(rng, incident, difficulty)
    return reasoning, answer(service, cause)

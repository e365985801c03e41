"""The reward of a triage: what each part of it asks for, exactly."""

import re

from llmgym.envs.aiops.scoring import MAX_CHARS, brevity, parse_answer
from llmgym.envs.incidents.conclusions import concludes
from llmgym.envs.incidents.diagnosis import leaves_one
from llmgym.envs.incidents.incident import Incident
from llmgym.envs.incidents.replies import telling_signals
from llmgym.envs.incidents.world import Difficulty

_CITATION = re.compile(r"\[([SMLT]\d{1,3})\]")


def score_parts(incident: Incident, difficulty: Difficulty, round_1: str, round_2: str) -> dict[str, float]:
    """Score both replies; every part is between 0 and 1.

    Args:
        incident: What really happened.
        difficulty: The names in play; others are unknown names.
        round_1: The reasoning.
        round_2: The answer.
    """
    return {
        **answer_parts(incident, difficulty, round_2),
        "evidence": evidence(incident, difficulty, round_1),
        "no_early_conclusion": float(bool(round_1.strip()) and not concludes(round_1)),
        "length_1": brevity(round_1, MAX_CHARS[0]),
        "length_2": brevity(round_2, MAX_CHARS[1]),
    }


def answer_parts(incident: Incident, difficulty: Difficulty, reply: str) -> dict[str, float]:
    """Score an answer: whether it has the form that is asked for and known names, and what of it is right."""
    answer = parse_answer(reply)
    types = {kind.name for kind in difficulty.types}
    service = answer.get("service") == incident.cause.service
    incident_type = answer.get("incident_type") == incident.cause.incident_type
    return {
        "json_ok": float(answer.get("service") in difficulty.service_names and answer.get("incident_type") in types),
        "service": float(service),
        "incident_type": float(incident_type),
        "acc_main": float(service and incident_type),
    }


def evidence(incident: Incident, difficulty: Difficulty, round_1: str) -> float:
    """Return how well round 1 cites signals that tell the cause apart.

    Counted are distinct tags in square brackets. If they leave exactly one possible cause,
    this is the square of the number that suffices, divided by the number cited; else it
    is 0. Tags that are not there cost as much as tags that tell nothing.
    """
    cited = set(_CITATION.findall(round_1))
    claims = [signal.claim for signal in incident.signals if signal.tag in cited]
    if not leaves_one(claims, difficulty):
        return 0.0
    return (len(telling_signals(incident, difficulty)) / len(cited)) ** 2

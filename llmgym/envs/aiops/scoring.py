"""The reward of a triage: what each part of it asks for, exactly."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from llmgym.envs.aiops.incident import Incident
from llmgym.envs.aiops.phrases import CONCLUSIONS
from llmgym.envs.aiops.world import INCIDENT_TYPES
from llmgym.errors import ConfigError, did_you_mean

DEFAULT_WEIGHTS: dict[str, float] = {
    "json_ok": 0.1,
    "service": 0.2,
    "incident_type": 0.2,
    "acc_main": 0.3,
    "evidence": 0.1,
    "no_early_conclusion": 0.05,
    "length_1": 0.025,
    "length_2": 0.025,
}
"""Every part of the reward and what it counts. The weights sum to 1, and so does the top score."""

CITATIONS_ASKED = 3  # distinct signals that round 1 has to cite for full evidence
MAX_CHARS = (1200, 120)  # longest replies of round 1 and 2 that are not too long
KEYS = {"service", "incident_type"}

_CITATION = re.compile(r"\[([SMLT]\d{1,3})\]")
_TYPE_NAME = re.compile("|".join(cause.name.replace("_", "[ _-]") for cause in INCIDENT_TYPES))


def check_weights(weights: Mapping[str, float] | None) -> dict[str, float]:
    """Return the weight of every part, where some are given in place of the default ones.

    Raises:
        ConfigError: A name is of no part, or a weight is not a finite number.
    """
    for name, weight in (weights or {}).items():
        if name not in DEFAULT_WEIGHTS:
            raise ConfigError(
                f"weights has no part {name!r}.{did_you_mean(name, DEFAULT_WEIGHTS)} "
                f"Parts: {', '.join(DEFAULT_WEIGHTS)}."
            )
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise ConfigError(f"weights[{name!r}] has to be a finite number, got {weight!r}.")
    return {**DEFAULT_WEIGHTS, **(weights or {})}


def score_parts(incident: Incident, round_1: str, round_2: str, names: dict[str, tuple[str, ...]]) -> dict[str, float]:
    """Score both replies; every part is between 0 and 1.

    Args:
        incident: What really happened.
        round_1: The reasoning.
        round_2: The answer.
        names: The names in play of each key of the answer; others are unknown names.
    """
    answer = parse_answer(round_2)
    service = answer.get("service") == incident.service
    incident_type = answer.get("incident_type") == incident.incident_type
    json_ok = bool(answer) and all(answer[key] in names[key] for key in KEYS)
    return {
        "json_ok": float(json_ok),
        "service": float(service),
        "incident_type": float(incident_type),
        "acc_main": float(service and incident_type),
        "evidence": evidence(incident, round_1),
        "no_early_conclusion": float(bool(round_1.strip()) and not concludes(round_1)),
        "length_1": brevity(round_1, MAX_CHARS[0]),
        "length_2": brevity(round_2, MAX_CHARS[1]),
    }


def parse_answer(reply: str) -> dict[str, str]:
    """Read the answer of round 2, or return {} for anything but exactly what was asked for.

    Accepted is one JSON object with the two string keys, each once, nothing else in it,
    and nothing before or after it but white space.
    """
    if len(reply) > 10 * MAX_CHARS[1]:  # also keeps deep nesting away from the parser
        return {}
    try:
        pairs = json.loads(reply, object_pairs_hook=_Pairs, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(pairs, _Pairs) or sorted(key for key, _ in pairs) != sorted(KEYS):
        return {}
    answer = dict(pairs)
    return answer if all(isinstance(value, str) for value in answer.values()) else {}


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object as they stand, so that a key given twice shows."""


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON.")


def evidence(incident: Incident, round_1: str) -> float:
    """Return how well round 1 cites signals that are there, direct traces of the cause among them.

    Counted are distinct tags in square brackets: ``found / max(cited, CITATIONS_ASKED)``,
    so that invented tags cost as much as missing ones; halved if no direct trace is cited.
    """
    shown = {signal.tag: signal for signal in incident.signals}
    cited = set(_CITATION.findall(round_1))
    found = cited & shown.keys()
    share = len(found) / max(len(cited), CITATIONS_ASKED)
    return share if any(shown[tag].root for tag in found) else share / 2


def concludes(round_1: str) -> bool:
    """Tell whether round 1 names an incident type, states a cause, or answers with JSON already."""
    text = round_1.lower()
    return "{" in text or bool(_TYPE_NAME.search(text)) or any(phrase in text for phrase in CONCLUSIONS)


def brevity(reply: str, limit: int) -> float:
    """Return 1 for a reply of at most `limit` characters, falling to 0 at twice that; 0 if it is blank."""
    if not reply.strip():
        return 0.0
    return min(1.0, max(0.0, 2.0 - len(reply) / limit))

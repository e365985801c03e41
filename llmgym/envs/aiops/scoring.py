"""The reward of a triage: what each part of it asks for, exactly."""

import json
import re
from collections.abc import Mapping
from numbers import Real
from typing import Any

from llmgym.envs.aiops.conclusions import concludes
from llmgym.envs.aiops.diagnosis import leaves_one
from llmgym.envs.aiops.incident import Incident
from llmgym.envs.aiops.replies import telling_signals
from llmgym.envs.aiops.world import Difficulty
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

MAX_CHARS = (1200, 120)  # longest replies of round 1 and 2 that are not too long
KEYS = {"service", "incident_type"}
_MOST = 1_000_000  # that a part can count

_BRACKETS = re.compile(r"[\[【［]([^\[\]【】［］]*)[\]】］]")
_TAG = re.compile(r"\b[SMLT]\d{1,3}\b", re.IGNORECASE | re.ASCII)


def check_weights(weights: Mapping[str, float] | None) -> dict[str, float]:
    """Return the weight of every part, where some are given in place of the default ones.

    Raises:
        ConfigError: A name is of no part, or a weight is no number from 0 to a million.
    """
    if weights is not None and not isinstance(weights, Mapping):
        raise ConfigError(f"weights: expected a mapping of parts to numbers, got {weights!r:.80}")
    for name, weight in (weights or {}).items():
        if name not in DEFAULT_WEIGHTS:
            raise ConfigError(
                f"weights has no part {name!r}.{did_you_mean(str(name), DEFAULT_WEIGHTS)} "
                f"Parts: {', '.join(DEFAULT_WEIGHTS)}."
            )
        if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 <= weight <= _MOST:
            raise ConfigError(f"weights[{name!r}] has to be a number from 0 to {_MOST:,}, got {weight!r:.80}.")
    return {**DEFAULT_WEIGHTS, **{name: float(weight) for name, weight in (weights or {}).items()}}


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
        "no_early_conclusion": float(0 < len(round_1.strip()) <= 10 * MAX_CHARS[0] and not concludes(round_1)),
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


def evidence(incident: Incident, difficulty: Difficulty, round_1: str) -> float:
    """Return how well round 1 cites signals that tell the cause apart.

    Counted are distinct tags in square brackets, a pair of them for each or for several. If
    they leave exactly one possible cause, this is (the number that suffices / the number
    cited) squared; else it is 0. Tags that are not there cost as much as tags that tell
    nothing.
    """
    cited = {tag.upper() for within in _BRACKETS.findall(round_1) for tag in _TAG.findall(within)}
    claims = [signal.claim for signal in incident.signals if signal.tag in cited]
    if not leaves_one(claims, difficulty):
        return 0.0
    return (len(telling_signals(incident, difficulty)) / len(cited)) ** 2


def brevity(reply: str, limit: int) -> float:
    """Return 1 for a reply of at most `limit` characters, falling to 0 at twice that; 0 if it is blank."""
    if not reply.strip():
        return 0.0
    return min(1.0, max(0.0, 2.0 - len(reply) / limit))

"""What signals tell: which causes are possible, and how few signals leave one.

A signal makes a claim about one service, or none. A cause is possible if it agrees with
every claim. A set of causes is an integer here, with a bit for each of `Difficulty.causes`.
"""

import functools
import itertools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from llmgym.envs.incidents.world import INCIDENT_TYPES, Cause, Difficulty, slow_services

_RAISES = {kind.name: kind.gauges for kind in INCIDENT_TYPES}


@dataclass(frozen=True, slots=True)
class Claim:
    """What a signal says of a service.

    Attributes:
        service: The service.
        state: ``slow`` or ``fine``; of one gauge ``high`` or ``normal``; ``earlier`` says nothing of the incident.
        gauge: The gauge, where it is about one.
    """

    service: str
    state: Literal["slow", "fine", "high", "normal", "earlier"]
    gauge: str | None = None


def agrees(cause: Cause, claim: Claim, slow: frozenset[str]) -> bool:
    """Tell whether a claim can be true if this is the cause, which makes these services slow."""
    at_fault = claim.service == cause.service
    match claim.state:
        case "slow":
            return claim.service in slow
        case "fine":
            return claim.service not in slow
        case "high":
            return not at_fault or claim.gauge in _RAISES[cause.incident_type]
        case "normal":
            return not at_fault or claim.gauge not in _RAISES[cause.incident_type]
        case "earlier":
            return True


@cache
def possible(claim: Claim, difficulty: Difficulty) -> int:
    """Return the causes that agree with a claim, a bit each."""
    slow = {name: slow_services(name, difficulty.topology) for name in difficulty.service_names}
    return sum(1 << bit for bit, cause in enumerate(difficulty.causes) if agrees(cause, claim, slow[cause.service]))


def left(claims: Iterable[Claim], difficulty: Difficulty) -> int:
    """Return the causes that agree with all claims, a bit each."""
    every = (1 << len(difficulty.causes)) - 1
    return functools.reduce(operator.and_, (possible(claim, difficulty) for claim in claims), every)


def leaves_one(claims: Iterable[Claim], difficulty: Difficulty) -> bool:
    """Tell whether exactly one cause agrees with all claims."""
    return left(claims, difficulty).bit_count() == 1


def services_left(claims: Iterable[Claim], difficulty: Difficulty) -> int:
    """Return how many services a cause that agrees with all claims can be in."""
    causes, types = left(claims, difficulty), len(difficulty.types)
    return sum(bool(causes >> i * types & (1 << types) - 1) for i in range(len(difficulty.service_names)))


def smallest_set(claims: Sequence[Claim], difficulty: Difficulty) -> tuple[int, ...]:
    """Return the indices of as few claims as leave one cause.

    A claim that leaves at least all that another one leaves is never needed beside it, so
    only the others are tried, in the order given.

    Args:
        claims: Claims that leave one cause together.
        difficulty: The causes there are.

    Raises:
        ValueError: The claims leave more than one cause, or none.
    """
    masks = [possible(claim, difficulty) for claim in claims]
    telling = [i for i, mask in enumerate(masks) if not any(_tells_more(masks, j, i) for j in range(len(masks)))]
    for size in range(1, len(telling) + 1):
        for chosen in itertools.combinations(telling, size):
            if functools.reduce(operator.and_, (masks[i] for i in chosen)).bit_count() == 1:
                return chosen
    raise ValueError(f"The claims leave {left(claims, difficulty).bit_count()} causes, not one.")


def _tells_more(masks: list[int], one: int, other: int) -> bool:
    """Tell whether a mask leaves less than another, or as much and is given before it."""
    return masks[one] & masks[other] == masks[one] and (masks[one] != masks[other] or one < other)

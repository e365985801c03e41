"""What signals tell: which causes are possible, and how few signals leave one.

A signal makes a claim about one service, or none. A cause is possible if it agrees with
every claim. A set of causes is an integer here, with a bit for each of `Difficulty.causes`.
"""

import functools
import itertools
import operator
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeVar

from llmgym.envs.aiops.world import INCIDENT_TYPES, Cause, Difficulty, slow_services

Name = TypeVar("Name", bound=Hashable)

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


def services_left(claims: Iterable[Claim], difficulty: Difficulty) -> list[str]:
    """Return the services that a cause which agrees with all claims can be in."""
    causes, types = left(claims, difficulty), len(difficulty.types)
    return [name for i, name in enumerate(difficulty.service_names) if causes >> i * types & (1 << types) - 1]


def smallest_set(claims: Sequence[Claim], difficulty: Difficulty) -> tuple[int, ...]:
    """Return the indices of as few claims as leave one cause; see `fewest`."""
    return fewest([], dict(enumerate([claim] for claim in claims)), difficulty)


def fewest(told: Iterable[Claim], groups: Mapping[Name, Iterable[Claim]], difficulty: Difficulty) -> tuple[Name, ...]:
    """Return the names of as few groups of claims as leave one cause.

    A group that leaves at least all that another one leaves is never needed beside it. Of
    sets of one size, the first in the order given is returned.

    Args:
        told: Claims that are known already.
        groups: Claims that come together, by name; all of them together leave one cause.
        difficulty: The causes there are.

    Raises:
        ValueError: All claims leave more than one cause, or none.
    """
    known = left(told, difficulty)
    masks = [left(claims, difficulty) for claims in groups.values()]
    right = functools.reduce(operator.and_, masks, known)
    if right.bit_count() != 1:
        raise ValueError(f"The claims leave {right.bit_count()} causes, not one.")
    telling = [i for i in range(len(masks)) if not any(_tells_more(masks, j, i) for j in range(len(masks)))]
    size = next(size for size in itertools.count() if _can(known, [masks[i] for i in telling], size))
    chosen: list[int] = []
    for i in telling:
        if _can(known & masks[i], [masks[j] for j in telling if j > i], size - len(chosen) - 1):
            chosen.append(i)
            known &= masks[i]
    names = list(groups)
    return tuple(names[i] for i in chosen)


def _can(causes: int, masks: list[int], size: int) -> bool:
    """Tell whether so many masks at most leave one of some causes; the right one is in all of them."""
    if causes.bit_count() == 1:
        return size >= 0
    if size <= 0:
        return False
    right = functools.reduce(operator.and_, masks, causes)
    excluding: list[int] | None = None  # of the wrong cause that fewest masks exclude
    wrong = causes & ~right
    while wrong:
        bit = wrong & -wrong
        wrong ^= bit
        found = [mask for mask in masks if not mask & bit]
        if excluding is None or len(found) < len(excluding):
            excluding = found
    return right.bit_count() == 1 and any(_can(causes & mask, masks, size - 1) for mask in excluding or ())


def _tells_more(masks: list[int], one: int, other: int) -> bool:
    """Tell whether a mask leaves less than another, or as much and is given before it."""
    return masks[one] & masks[other] == masks[one] and (masks[one] != masks[other] or one < other)

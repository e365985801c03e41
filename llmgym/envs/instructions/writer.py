"""Short texts by chance about everyday places, of several shapes: prose, bullet points or JSON."""

import json
from collections.abc import Callable

import numpy as np

_PLACES = {
    "a bakery": ("baker", "apprentice", "oven", "bread", "counter", "flour"),
    "a harbor": ("sailor", "fisher", "boat", "anchor", "pier", "net"),
    "a garden": ("gardener", "neighbor", "hedge", "rose", "bench", "bucket"),
    "a school": ("teacher", "pupil", "desk", "lesson", "window", "pencil"),
    "a kitchen": ("cook", "guest", "kettle", "soup", "table", "spoon"),
    "a farm": ("farmer", "driver", "tractor", "barn", "fence", "harvest"),
    "a library": ("reader", "librarian", "shelf", "novel", "lamp", "catalog"),
    "a workshop": ("carpenter", "visitor", "hammer", "plank", "drawer", "chisel"),
    "a station": ("traveler", "guard", "train", "ticket", "platform", "suitcase"),
    "a theater": ("actor", "director", "curtain", "costume", "stage", "script"),
}
"""For each topic two people and four things."""

_VERBS = ("cleans", "carries", "repairs", "admires", "moves", "draws", "checks", "paints", "covers", "measures")
_ADJECTIVES = ("old", "small", "heavy", "bright", "quiet", "new", "green", "broken", "famous", "simple")
_TIMES = ("before noon", "after lunch", "at dawn", "on Monday", "in winter", "at night", "today", "in silence")
_KEYS = ("title", "summary", "place", "person", "detail", "ending", "opening", "mood")

TOPICS = tuple(_PLACES)


def write(rng: np.random.Generator, topic: str) -> str:
    """Write a text about a topic."""
    shape = rng.integers(3)
    text = (_prose, _bullets, _json)[shape](rng, topic)
    recased: Callable[[str], str] = (str, str, str.lower, str.upper)[rng.integers(4)]
    return recased(text)


def _prose(rng: np.random.Generator, topic: str) -> str:
    return " ".join(f"{line[0].upper()}{line[1:]}." for line in _lines(rng, topic, int(rng.integers(2, 6))))


def _bullets(rng: np.random.Generator, topic: str) -> str:
    return "\n".join(f"- {line}" for line in _lines(rng, topic, int(rng.integers(2, 6))))


def _json(rng: np.random.Generator, topic: str) -> str:
    keys = [_KEYS[i] for i in rng.permutation(len(_KEYS))[: rng.integers(2, 5)]]
    return json.dumps(dict(zip(keys, _lines(rng, topic, len(keys)), strict=True)))


def _lines(rng: np.random.Generator, topic: str, count: int) -> list[str]:
    """Return clauses without repeating verbs, adjectives or times."""
    people, things = _PLACES[topic][:2], _PLACES[topic][2:]
    article = ("the", "a", "one")[rng.integers(3)]
    commas = rng.random() < 0.5
    verbs, adjectives, times = (rng.permutation(among) for among in (_VERBS, _ADJECTIVES, _TIMES))
    lines = []
    for i in range(count):
        person, thing = people[rng.integers(2)], things[rng.integers(4)]
        clause = f"{article} {person} {verbs[i]} {article} {adjectives[i]} {thing}"
        lines.append(f"{times[i]}, {clause}" if commas else f"{clause} {times[i]}")
    return lines

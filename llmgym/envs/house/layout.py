"""What a house is made of, and how one is drawn: rooms, furniture, food, and a goal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

Treatment = Literal["wash", "slice", "heat", "cool"]

STATIONS: dict[Treatment, str] = {"wash": "sink", "slice": "chopping board", "heat": "stove", "cool": "fridge"}
"""Where food is treated."""
TREATED: dict[Treatment, str] = {"wash": "washed", "slice": "sliced", "heat": "heated", "cool": "cooled"}

_STATION_ROOMS = {
    "sink": ("kitchen", "bathroom"),
    "chopping board": ("kitchen", "dining room"),
    "stove": ("kitchen",),
    "fridge": ("kitchen", "pantry"),
}
_FURNITURE = {  # of each room: what things are on, and what they are in
    "kitchen": ("counter", "cupboard"),
    "dining room": ("dining table", "sideboard"),
    "living room": ("coffee table", "chest"),
    "pantry": ("shelf", "crate"),
    "bedroom": ("nightstand", "wardrobe"),
    "study": ("desk", "drawer"),
    "bathroom": ("stool", "cabinet"),
    "garage": ("workbench", "toolbox"),
    "balcony": ("bench", "basket"),
}
_FOOD = ("potato", "apple", "tomato", "carrot", "egg", "bread", "lettuce", "pear", "onion", "pepper", "fish", "corn")
_COMPATIBLE: tuple[tuple[Treatment, ...], ...] = (
    ("heat",), ("cool",), ("wash",), ("slice",), ("wash", "slice"), ("wash", "heat"), ("slice", "heat"),
    ("wash", "cool"), ("slice", "cool"),
)  # fmt: skip


class Level(NamedTuple):
    """What a difficulty asks for."""

    rooms: int
    food: int  # kinds of food in the house
    dishes: int  # pieces of food that the goal names
    treatments: int  # of a dish, at most
    turns: int


LEVELS = (Level(4, 4, 1, 1, 30), Level(5, 6, 2, 1, 50), Level(7, 9, 3, 2, 75), Level(9, 12, 4, 2, 100))


class Furniture(NamedTuple):
    """Something that things can be on or in."""

    room: str
    closes: bool  # whether it is a container, closed at first


@dataclass(frozen=True, slots=True)
class Layout:
    """A house before anything is done in it, and what is to be done.

    Attributes:
        rooms: The rooms next to each room.
        furniture: All of it, by name.
        stations: The room of each place where food is treated.
        food: On or in which furniture each piece of food is.
        start: The room that the agent is in.
        dishes: What the goal names, and how each is to be treated.
        target: The furniture that all of it has to be on.
    """

    rooms: Mapping[str, tuple[str, ...]]
    furniture: Mapping[str, Furniture]
    stations: Mapping[str, str]
    food: Mapping[str, str]
    start: str
    dishes: Mapping[str, tuple[Treatment, ...]]
    target: str

    @property
    def content(self) -> str:
        """What the task consists of."""
        return repr(self)

    @property
    def goal(self) -> str:
        """The goal in words."""
        dishes = [f"the {' and '.join(TREATED[one] for one in how)} {food}" for food, how in self.dishes.items()]
        *first, last = dishes
        return f"Put {', '.join(first)}{' and ' * bool(first)}{last} on the {self.target}."


def draw_layout(rng: np.random.Generator, level: Level) -> Layout:
    """Draw a house; its rooms are a tree with one more door, and no piece of food lies where it has to go."""
    rooms = ["kitchen", "dining room", *_some(rng, list(_FURNITURE)[2:], level.rooms - 2)]
    rooms = _some(rng, rooms, len(rooms))
    furniture: dict[str, Furniture] = {}
    for room in rooms:
        top, inside = _FURNITURE[room]
        furniture |= {top: Furniture(room, closes=False), inside: Furniture(room, closes=True)}
    target = str(rng.choice([name for name, one in furniture.items() if not one.closes]))
    places = [name for name in furniture if name != target]
    food = {name: str(rng.choice(places)) for name in _some(rng, list(_FOOD), level.food)}
    ways = [way for way in _COMPATIBLE if len(way) <= level.treatments]
    dishes = {name: ways[rng.integers(len(ways))] for name in _some(rng, list(food), level.dishes)}
    stations = {
        name: str(rng.choice([room for room in choices if room in rooms])) for name, choices in _STATION_ROOMS.items()
    }
    return Layout(_doors(rng, rooms), furniture, stations, food, str(rng.choice(rooms)), dishes, target)


def _some(rng: np.random.Generator, names: list[str], count: int) -> list[str]:
    return [names[i] for i in rng.permutation(len(names))[:count]]


def _doors(rng: np.random.Generator, rooms: list[str]) -> dict[str, tuple[str, ...]]:
    """Join each room to one before it, and the last one to another."""
    pairs = {(rooms[rng.integers(i)], rooms[i]) for i in range(1, len(rooms))}
    pairs.add((rooms[rng.integers(len(rooms) - 1)], rooms[-1]))
    return {room: tuple(sorted({a if b == room else b for a, b in pairs if room in (a, b)})) for room in rooms}

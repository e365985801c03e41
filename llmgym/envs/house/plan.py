"""The expert's plan: the shortest of all that fetch, treat and serve one dish after another."""

import itertools
from collections.abc import Mapping

from llmgym.envs.house.layout import STATIONS, Layout, Treatment


def way(rooms: Mapping[str, tuple[str, ...]], start: str, goal: str) -> tuple[str, ...]:
    """Return the rooms to go through, the goal last, on a shortest way."""
    ways: list[tuple[str, ...]] = [(start,)]
    for path in ways:  # breadth first: the list grows while it is read
        if path[-1] == goal:
            return path[1:]
        ways += [(*path, room) for room in rooms[path[-1]] if room not in path]
    raise ValueError(f"There is no way from the {start} to the {goal}.")


def plan(layout: Layout) -> list[str]:
    """Return the commands of the shortest plan, over all orders of dishes and of their treatments."""
    return min([_plan(layout, order) for order in itertools.permutations(layout.dishes)], key=len)


def _plan(layout: Layout, order: tuple[str, ...]) -> list[str]:
    commands: list[str] = []
    room, opened = layout.start, set[str]()
    for food in order:
        place = layout.food[food]
        commands += _going(layout, room, layout.furniture[place].room)
        if layout.furniture[place].closes and place not in opened:
            commands.append(f"open {place}")
            opened.add(place)
        commands.append(f"take {food} from {place}")
        room = layout.furniture[place].room
        ways = [_serving(layout, room, food, how) for how in itertools.permutations(layout.dishes[food])]
        shortest: list[str] = min(ways, key=len)
        commands += shortest
        room = layout.furniture[layout.target].room
    return commands


def _serving(layout: Layout, room: str, food: str, treatments: tuple[Treatment, ...]) -> list[str]:
    """Return the commands from taking a piece of food to serving it."""
    commands: list[str] = []
    for treatment in treatments:
        station = STATIONS[treatment]
        commands += [*_going(layout, room, layout.stations[station]), f"{treatment} {food} with {station}"]
        room = layout.stations[station]
    return [*commands, *_going(layout, room, layout.furniture[layout.target].room), f"put {food} on {layout.target}"]


def _going(layout: Layout, start: str, goal: str) -> list[str]:
    return [f"go to {room}" for room in way(layout.rooms, start, goal)]

"""`State`: a house while something is done in it, and what each command does."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from llmgym.envs.house.commands import Command
from llmgym.envs.house.layout import STATIONS, TREATED, Layout, Treatment

HELD = "your hands"  # where the food is that the agent holds


class SubGoal(NamedTuple):
    """One step towards the goal."""

    name: str  # found, washed, sliced, heated, cooled or served
    food: str


class State:
    """Where everything is, and how far the goal is reached.

    Args:
        layout: The house at the beginning.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.room = layout.start
        self.food = dict(layout.food)  # where each piece is
        self.treated: dict[str, set[Treatment]] = {name: set() for name in layout.food}
        self.opened: set[str] = set()
        self.reached: set[SubGoal] = set()
        stations = list(layout.stations)
        self.names = (*layout.rooms, *layout.furniture, *stations, *layout.food)

    @property
    def sub_goals(self) -> list[SubGoal]:
        """All steps: each dish has to be found, treated and served."""
        return [
            SubGoal(name, food)
            for food, treatments in self.layout.dishes.items()
            for name in ("found", *(TREATED[one] for one in treatments), "served")
        ]

    @property
    def done(self) -> bool:
        """Whether every step was taken."""
        return len(self.reached) == len(self.sub_goals)

    @property
    def held(self) -> str | None:
        """The piece of food in the agent's hands."""
        return next((name for name, place in self.food.items() if place == HELD), None)

    def view(self) -> str:
        """Return what the agent sees: the room that it is in, and what is open in it."""
        layout = self.layout
        here = [self._look_of(name) for name, one in layout.furniture.items() if one.room == self.room]
        here += [f"a {name}" for name, room in layout.stations.items() if room == self.room]
        holds = f"the {self._described(self.held)}" if self.held else "nothing"
        return (
            f"You are in the {self.room}, and hold {holds}. Here: {'; '.join(here)}. "
            f"Doors: {', '.join(layout.rooms[self.room])}."
        )

    def _look_of(self, name: str) -> str:
        inside = [self._described(food) for food, place in self.food.items() if place == name]
        if self.layout.furniture[name].closes and name not in self.opened:
            return f"a {name} (closed)"
        return f"a {name} ({', '.join(inside) or 'empty'})"

    def _described(self, food: str) -> str:
        return " ".join([*(TREATED[one] for one in STATIONS if one in self.treated[food]), food])

    def do(self, command: Command) -> str | None:
        """Carry out a command; return why that cannot be done, or None if it was."""
        act: dict[str, Callable[[Sequence[str]], str | None]] = {
            "go": self._go,
            "open": self._open,
            "take": self._take,
            "put": self._put,
            "look": lambda things: None,
            **{one: self._treating(one) for one in STATIONS},
        }
        refusal = act[command.verb](command.things)
        if refusal is None:
            self._note()
        return refusal

    def _go(self, things: Sequence[str]) -> str | None:
        room = next((one for one in things if one in self.layout.rooms), None)
        if room is None or room not in self.layout.rooms[self.room]:
            return "No door leads there from here."
        self.room = room
        return None

    def _open(self, things: Sequence[str]) -> str | None:
        name = next((one for one in things if self._is_here(one)), None)
        if name is None or not self.layout.furniture[name].closes:
            return "There is no such thing to open here."
        if name in self.opened:
            return f"The {name} is open."
        self.opened.add(name)
        return None

    def _take(self, things: Sequence[str]) -> str | None:
        food = next((one for one in things if one in self.food), None)
        if self.held is not None:
            return f"You hold the {self.held}; put it somewhere first."
        if food is None or not self._is_in_reach(self.food[food]):
            return "You see no such thing here."
        if SubGoal("served", food) in self.reached:
            return f"The {food} is served; leave it there."
        self.food[food] = HELD
        return None

    def _put(self, things: Sequence[str]) -> str | None:
        place = next((one for one in reversed(things) if one in self.layout.furniture), None)
        if self.held is None or (things and things[0] in self.food and things[0] != self.held):
            return "You do not hold that."
        if place is None or not self._is_in_reach(place):
            return "You cannot put it there: name something in this room that is not closed."
        self.food[self.held] = place
        return None

    def _treating(self, treatment: Treatment) -> Callable[[Sequence[str]], str | None]:
        def treat(things: Sequence[str]) -> str | None:
            station = STATIONS[treatment]
            if self.held is None or (things and things[0] != self.held and things[0] in self.food):
                return "You do not hold that."
            if self.layout.stations[station] != self.room:
                return f"There is no {station} here."
            undone = {"heat": "cool", "cool": "heat"}.get(treatment)
            self.treated[self.held] = {one for one in self.treated[self.held] if one != undone} | {treatment}
            return None

        return treat

    def _is_here(self, name: str) -> bool:
        return name in self.layout.furniture and self.layout.furniture[name].room == self.room

    def _is_in_reach(self, place: str) -> bool:
        return self._is_here(place) and (not self.layout.furniture[place].closes or place in self.opened)

    def _note(self) -> None:
        """Write down which steps are taken by now; once taken, they stay so."""
        for food, treatments in self.layout.dishes.items():
            treated = self.treated[food]
            if self.food[food] == HELD:
                self.reached.add(SubGoal("found", food))
            self.reached |= {SubGoal(TREATED[one], food) for one in treatments if one in treated}
            if self.food[food] == self.layout.target and treated >= set(treatments):
                self.reached.add(SubGoal("served", food))

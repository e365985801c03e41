"""A board and what a move does on it: one set of rules for lakes, mazes and Sokoban."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

Cell = tuple[int, int]
"""Row and column, from the top left."""

MOVES: Mapping[str, Cell] = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}

WALL, FLOOR, HOLE, GOAL = "#", ".", "O", "G"
AGENT, BOX = "A", "B"
AGENT_ON_GOAL, BOX_ON_GOAL = "a", "b"


class State(NamedTuple):
    """What moves."""

    agent: Cell
    boxes: frozenset[Cell] = frozenset()


@dataclass(frozen=True, slots=True)
class Board:
    """What does not move.

    Attributes:
        rows: One string per row, of walls, floor, holes and goals. The border has no gap.
        pushing: Whether boxes have to be pushed onto all goals; else the agent has to reach one.

    Example:
        >>> board = Board(("#####", "#..G#", "#####"), pushing=False)
        >>> print(board.drawn(State((1, 1))))
        # # # # #
        # A . G #
        # # # # #
        >>> board.solved(State((1, 3)))
        True
    """

    rows: tuple[str, ...]
    pushing: bool

    def cells(self, kind: str) -> list[Cell]:
        """Return where the board has a kind of cell."""
        return [(r, c) for r, row in enumerate(self.rows) for c, cell in enumerate(row) if cell == kind]

    def at(self, cell: Cell) -> str:
        """Return what a cell is."""
        return self.rows[cell[0]][cell[1]]

    def moved(self, state: State, move: Cell) -> State:
        """Return what a move makes of a state; the same one if a wall, or what a box meets, is in the way."""
        to = _next(state.agent, move)
        if self.at(to) == WALL:
            return state
        if to not in state.boxes:
            return State(to, state.boxes)
        beyond = _next(to, move)
        if self.at(beyond) == WALL or beyond in state.boxes:
            return state
        return State(to, state.boxes - {to} | {beyond})

    def moved_from(self, state: State, move: Cell) -> list[State]:
        """Return the states that a move makes this one of, each by a real change."""
        agent = state.agent
        before = (agent[0] - move[0], agent[1] - move[1])
        if self.at(before) in (WALL, HOLE) or before in state.boxes:
            return []
        states = [State(before, state.boxes)]
        pushed = _next(agent, move)
        if pushed in state.boxes:
            states.append(State(before, state.boxes - {pushed} | {agent}))
        return states

    def solved(self, state: State) -> bool:
        """Tell whether the goal is reached."""
        if not self.pushing:
            return self.at(state.agent) == GOAL
        return all(self.at(box) == GOAL for box in state.boxes)

    def lost(self, state: State) -> bool:
        """Tell whether the agent fell into a hole."""
        return self.at(state.agent) == HOLE

    def drawn(self, state: State) -> str:
        """Draw it with what moves, a row per line and a space between cells."""
        cells = [list(row) for row in self.rows]
        for r, c in state.boxes:
            cells[r][c] = BOX_ON_GOAL if cells[r][c] == GOAL else BOX
        r, c = state.agent
        if cells[r][c] != HOLE:
            cells[r][c] = AGENT_ON_GOAL if cells[r][c] == GOAL else AGENT
        return "\n".join(" ".join(row) for row in cells)


def _next(cell: Cell, move: Cell) -> Cell:
    return cell[0] + move[0], cell[1] + move[1]

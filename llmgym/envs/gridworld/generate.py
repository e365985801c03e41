"""Boards by chance, with a start from which they can be solved in a number of moves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from llmgym.envs.gridworld.board import FLOOR, GOAL, HOLE, MOVES, WALL, Board, Cell, State
from llmgym.envs.gridworld.search import states_by_distance
from llmgym.envs.splits import Split, split_of

Kind = Literal["lake", "maze", "sokoban"]


class Level(NamedTuple):
    """What a difficulty asks for."""

    lake: int  # width inside the border
    maze: int  # likewise; odd
    sokoban: int  # likewise
    boxes: int
    moves: tuple[int, int]  # of the shortest solution
    turns: int


LEVELS = (
    Level(lake=4, maze=5, sokoban=4, boxes=1, moves=(3, 6), turns=15),
    Level(lake=6, maze=7, sokoban=5, boxes=1, moves=(6, 12), turns=30),
    Level(lake=8, maze=9, sokoban=5, boxes=2, moves=(9, 18), turns=45),
    Level(lake=10, maze=13, sokoban=6, boxes=2, moves=(14, 28), turns=60),
)


@dataclass(frozen=True, slots=True)
class Grid:
    """One task: a board and where everything is at first."""

    kind: Kind
    board: Board
    start: State

    @property
    def content(self) -> str:
        """The board, wherever the agent and boxes are at first."""
        return "\n".join(self.board.rows)


def generate_grid(rng: np.random.Generator, kind: Kind, level: Level, split: Split) -> Grid:
    """Draw a board of a kind and a split, and a start as far from its solution as the level asks for.

    A search backwards from all solved states finds the starts, so every board can be solved.
    """
    low, high = level.moves
    while True:
        board = _BOARDS[kind](rng, level)
        if split_of("\n".join(board.rows)) != split:  # asked before the search, which takes longest
            continue
        rings = states_by_distance(board, _solved(board), high)
        distances = [distance for distance in range(low, len(rings)) if rings[distance]]
        if distances:
            ring = rings[distances[rng.integers(len(distances))]]
            return Grid(kind, board, ring[rng.integers(len(ring))])


def _solved(board: Board) -> list[State]:
    """Return the states in which a board is solved."""
    goals = board.cells(GOAL)
    if not board.pushing:
        return [State(goal) for goal in goals]
    boxes = frozenset(goals)
    return [State(cell, boxes) for cell in board.cells(FLOOR)]


def _lake(rng: np.random.Generator, level: Level) -> Board:
    """Ice with a hole in about every fourth cell."""
    holes = rng.random((level.lake, level.lake)) < 0.25
    rows = [[HOLE if hole else FLOOR for hole in row] for row in holes]
    return _board(rng, rows, goals=1, pushing=False)


def _maze(rng: np.random.Generator, level: Level) -> Board:
    """Passages of which exactly one leads from any cell to any other (depth-first search)."""
    rows = [[WALL] * level.maze for _ in range(level.maze)]
    rows[0][0] = FLOOR
    way: list[Cell] = [(0, 0)]
    while way:
        r, c = way[-1]
        ahead = [(r + 2 * dr, c + 2 * dc) for dr, dc in MOVES.values()]
        free = [(y, x) for y, x in ahead if 0 <= y < level.maze and 0 <= x < level.maze and rows[y][x] == WALL]
        if not free:
            way.pop()
            continue
        y, x = free[rng.integers(len(free))]
        rows[(r + y) // 2][(c + x) // 2] = rows[y][x] = FLOOR
        way.append((y, x))
    return _board(rng, rows, goals=1, pushing=False)


def _sokoban(rng: np.random.Generator, level: Level) -> Board:
    """A room with a wall in about every eighth cell."""
    walls = rng.random((level.sokoban, level.sokoban)) < 0.125
    rows = [[WALL if wall else FLOOR for wall in row] for row in walls]
    return _board(rng, rows, goals=level.boxes, pushing=True)


_BOARDS: dict[Kind, Callable[[np.random.Generator, Level], Board]] = {
    "lake": _lake,
    "maze": _maze,
    "sokoban": _sokoban,
}


def _board(rng: np.random.Generator, rows: list[list[str]], *, goals: int, pushing: bool) -> Board:
    """Put goals on the floor, and a wall around it all."""
    floor = [(r, c) for r, row in enumerate(rows) for c, cell in enumerate(row) if cell == FLOOR]
    for index in rng.permutation(len(floor))[:goals]:
        r, c = floor[index]
        rows[r][c] = GOAL
    edge = WALL * (len(rows[0]) + 2)
    return Board((edge, *(f"{WALL}{''.join(row)}{WALL}" for row in rows), edge), pushing)

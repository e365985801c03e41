"""Boards of tic-tac-toe as bits, and what a position is worth with perfect play.

A side is an integer with a bit per cell, row by row. A position is a pair: the side that is to move, and the other.
"""

import functools
from collections.abc import Iterator

Position = tuple[int, int]


@functools.cache
def lines(size: int) -> tuple[int, ...]:
    """Return the rows, columns and diagonals of a square board; a full one wins."""
    cells = range(size)
    straight = [[(r, c) for c in cells] for r in cells] + [[(r, c) for r in cells] for c in cells]
    diagonal = [[(i, i) for i in cells], [(i, size - 1 - i) for i in cells]]
    return tuple(sum(1 << (r * size + c) for r, c in line) for line in straight + diagonal)


def wins(side: int, size: int) -> bool:
    """Tell whether a side fills a line."""
    return any(side & line == line for line in lines(size))


def free(position: Position, size: int) -> list[int]:
    """Return the cells that nobody has taken."""
    taken = position[0] | position[1]
    return [cell for cell in range(size * size) if not taken >> cell & 1]


def after(position: Position, cell: int) -> Position:
    """Return the position after a move, from the other side."""
    return position[1], position[0] | 1 << cell


@functools.lru_cache(maxsize=1 << 18)
def worth(position: Position, size: int) -> int:
    """Return 1 if the side to move wins with perfect play of both, -1 if it loses, 0 for a draw."""
    own, other = position
    can_win, must_take, open_lines = False, 0, False
    for line in lines(size):
        mine, theirs = line & own, line & other
        if theirs == line:
            return -1
        if mine and theirs:
            continue
        open_lines = True
        missing = line ^ (mine | theirs)
        if missing & (missing - 1) == 0:  # a single cell
            can_win = can_win or not theirs
            must_take |= missing if theirs else 0
    if can_win or not open_lines:
        return int(can_win)
    if must_take & (must_take - 1):
        return -1  # two cells at once
    best = -1
    for cell in [must_take.bit_length() - 1] if must_take else free(position, size):
        best = max(best, -worth(after(position, cell), size))
        if best == 1:
            break
    return best


def best_cells(position: Position, size: int) -> list[int]:
    """Return every cell that keeps what the position is worth."""
    value = worth(position, size)
    return [cell for cell in free(position, size) if -worth(after(position, cell), size) == value]


def decisive_cells(position: Position, size: int) -> list[int]:
    """Return the cells that win at once; if there are none, those that the other side would win with."""
    taken = position[0] | position[1]
    for side in position:
        missing = [line & ~side for line in lines(size)]
        if found := {lack.bit_length() - 1 for lack in missing if lack & (lack - 1) == 0 and not lack & taken}:
            return sorted(found)
    return []


def alike(position: Position, size: int) -> Iterator[Position]:
    """Yield the eight positions that a board shows when it is turned and mirrored."""
    cells = [(r, c) for r in range(size) for c in range(size)]
    for turns in range(4):
        for mirrored in (False, True):
            seat = []
            for r, c in cells:
                for _ in range(turns):
                    r, c = c, size - 1 - r  # turned by a right angle
                seat.append(r * size + (size - 1 - c if mirrored else c))
            own, other = (sum(1 << seat[cell] for cell in range(size * size) if side >> cell & 1) for side in position)
            yield own, other

"""Shortest ways over a board: forwards from a state, and backwards from all solved ones."""

from collections import deque

from llmgym.envs.gridworld.board import MOVES, Board, State


def shortest_solution(board: Board, start: State) -> list[str] | None:
    """Return the names of as few moves as solve a board; None if nothing does."""
    came: dict[State, tuple[State, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        if board.solved(state):
            return _moves_to(state, came)
        for name, move in MOVES.items():
            reached = board.moved(state, move)
            if reached not in came and not board.lost(reached):
                came[reached] = (state, name)
                queue.append(reached)
    return None


def _moves_to(state: State, came: dict[State, tuple[State, str] | None]) -> list[str]:
    names = []
    while (step := came[state]) is not None:
        state, name = step
        names.append(name)
    return names[::-1]


def states_by_distance(board: Board, solved: list[State], most: int) -> list[list[State]]:
    """Return the unsolved states that are 0, 1, 2 ... moves from being solved, up to `most`; there are none at 0."""
    seen = set(solved)
    rings: list[list[State]] = [[]]
    edge = solved
    while edge and len(rings) <= most:
        ring = []
        for state in (before for known in edge for move in MOVES.values() for before in board.moved_from(known, move)):
            if state not in seen:
                seen.add(state)
                ring.append(state)
        rings.append(ring)
        edge = ring
    return rings

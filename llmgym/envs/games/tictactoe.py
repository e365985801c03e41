"""Tic-tac-toe from drawn openings, on boards of three and of four."""

from typing import NamedTuple

import numpy as np

from llmgym.envs.games.board import after, alike, best_cells, decisive_cells, free, wins, worth
from llmgym.envs.games.match import Computed, Match, pick
from llmgym.envs.games.table import TwoPlayerGame
from llmgym.envs.reading import last_named


class Level(NamedTuple):
    """What a difficulty asks for."""

    size: int  # of the board's sides, and of a line
    plies: tuple[int, int]  # how many marks are on the board when the game begins, at least and at most


LEVELS = (Level(3, (3, 4)), Level(4, (9, 10)), Level(4, (8, 8)), Level(4, (7, 7)))


class TicTacToeMatch(Match):
    """A game from an opening. Player 0 is X and player 1 is O.

    Args:
        size: Of the board's sides, and of a line.
        opening: The cells that were taken in turn, X first.
        dice: See `Match`.
    """

    def __init__(self, size: int, opening: list[int], dice: tuple[float, ...] = ()) -> None:
        super().__init__(dice)
        self.size = size
        self.position = (0, 0)  # of the player whose move it is, and of the other one
        self.winner: int | None = None
        for cell in opening:
            self._take(cell)
        self.opening = self.position
        self.names = [f"{'abcd'[c]}{r + 1}" for r in range(size) for c in range(size)]

    @property
    def content(self) -> str:
        """See `Match`: the opening, however the board is turned or mirrored."""
        return f"{self.size} {min(alike(self.opening, self.size))}"

    @property
    def rules(self) -> str:
        """See `Match`."""
        return (
            f"We play tic-tac-toe on a board of {self.size} columns, a to {'abcd'[self.size - 1]}, and {self.size} "
            f"rows. {self.size} marks in a row, column or diagonal win. Some moves have been made already."
        )

    @property
    def view(self) -> str:
        """See `Match`."""
        return f"{self._drawn}\nYou are {'XO'[self.mover]}. Reply with the column and the row of a free cell."

    @property
    def impossible(self) -> str:
        """See `Match`."""
        return next(name for name in self.names if name not in self._free)

    @property
    def _free(self) -> list[str]:
        return [self.names[cell] for cell in free(self.position, self.size)]

    @property
    def _drawn(self) -> str:
        sides = self.position if self.mover == 0 else self.position[::-1]
        marks = ["X" if sides[0] >> cell & 1 else "O" if sides[1] >> cell & 1 else "." for cell in range(self.size**2)]
        rows = [f"{r + 1} {' '.join(marks[r * self.size : (r + 1) * self.size])}" for r in range(self.size)]
        return "\n".join([f"  {' '.join('abcd'[: self.size])}", *rows])

    def read(self, reply: str) -> str | None:
        """See `Match`."""
        named = last_named(reply, self.names)
        return named if named in self._free else None

    def play(self, move: str) -> None:
        """See `Match`."""
        mover = self.mover
        self._take(self.names.index(move))
        self.told[1 - mover].append(f"Your opponent takes {move}.")
        if self.over:
            for player in range(2):
                end = "A draw." if self.winner is None else "You win." if self.winner == player else "You lose."
                self.told[player].append(f"{self._drawn}\n{end}")

    def _take(self, cell: int) -> None:
        self.position = after(self.position, cell)
        if wins(self.position[1], self.size):
            self.winner = self.mover
        self.over = self.winner is not None or not free(self.position, self.size)
        self.mover = 1 - self.mover

    def score(self, player: int) -> float:
        """Return 1 for a win, a half for a draw, and 0 for a loss."""
        return 0.0 if not self.over else 0.5 if self.winner is None else float(self.winner == player)

    def forfeited(self, player: int) -> float:
        """Return 1: the game is won."""
        return 1.0

    def move_of(self, opponent: Computed, die: float) -> str:
        """See `Match`."""
        cells = free(self.position, self.size)
        if opponent == "scripted":
            cells = decisive_cells(self.position, self.size) or cells
        elif opponent == "optimal":
            cells = best_cells(self.position, self.size)
        return pick([self.names[cell] for cell in cells], die)

    def best_reply(self, opponent: Computed, die: float) -> str:
        """Return a move of perfect play: it never loses, whoever the opponent is."""
        return self.move_of("optimal", die)


class TicTacToe(TwoPlayerGame):
    """Tic-tac-toe from an opening in which perfect play of both sides is a draw.

    The board is drawn in text, with columns a, b, c and rows 1, 2, 3. A reply is a free cell such as ``b2``; the last
    cell that is named counts. The agent may be X or O.

    The score is 1 for a win, 0.5 for a draw and 0 for a loss. A reply that is no legal move is answered with what can
    be played; the third in a game loses it. The last ``info`` counts them as ``illegal``. An episode is a success if
    it was not lost.

    Opponents: ``"random"`` takes any free cell. ``"scripted"`` wins if it can at once, else keeps the agent from doing
    so, else takes any. ``"optimal"`` never loses. The expert never loses either, so it draws with the optimal one.

    With ``"self"``, the policy that learns plays both sides, and each gives a trajectory of its own. With ``"frozen"``,
    it plays one side, and the other is played with the weights that it had at the start, or by ``--frozen-model``.
    ``--eval-env-kwargs opponent=optimal`` judges either against a player that does not learn.

    | difficulty | board and line | marks in the opening |
    |---|---|---|
    | 0 | 3 | 3 or 4 |
    | 1 | 4 | 9 or 10 |
    | 2 | 4 | 8 |
    | 3 | 4 | 7 |

    Args:
        difficulty: 0 to 3.
        split: ``"train"`` or ``"eval"``; no opening belongs to both, however the board is turned or mirrored. At
            difficulty 0, ``"eval"`` has 4 of them that differ in more than that.
        opponent: ``"random"``, ``"scripted"`` or ``"optimal"``; or ``"self"`` or ``"frozen"``, in training.
        options: What every `TextEnv` takes: `render_mode`, `scorer`.
    """

    @property
    def most_moves(self) -> int:
        """See `TwoPlayerGame`."""
        level = LEVELS[self.difficulty]
        return (level.size**2 - level.plies[0] + 1) // 2

    def draw(self, rng: np.random.Generator) -> TicTacToeMatch:
        """Draw an opening that is worth a draw."""
        level = LEVELS[self.difficulty]
        size = level.size
        while True:
            plies = rng.integers(*level.plies, endpoint=True)
            opening = [int(cell) for cell in rng.permutation(size * size)[:plies]]
            match = TicTacToeMatch(size, opening, tuple(rng.random(size * size).tolist()))
            if not match.over and worth(match.position, size) == 0:
                return match

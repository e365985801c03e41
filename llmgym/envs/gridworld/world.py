"""The environment: a map in text, and a move per turn."""

from collections.abc import Iterator
from typing import Any, Literal, get_args

from llmgym.envs.gridworld.board import MOVES
from llmgym.envs.gridworld.generate import LEVELS, Kind, generate_grid
from llmgym.envs.gridworld.search import shortest_solution
from llmgym.envs.reading import last_named
from llmgym.envs.splits import Split, check_difficulty_and_split, one_of
from llmgym.envs.text_env import TextEnv
from llmgym.types import Episode, Outcome, Score

INVALID = -0.02  # what a reply earns that names no move

_KINDS: tuple[Kind, ...] = get_args(Kind)
_RULES: dict[Kind, str] = {
    "lake": "You (A) are on a frozen lake. Reach G. Keep out of the holes (O). # is a wall, . is ice.",
    "maze": "You (A) are in a maze. Reach G. # is a wall, . is a passage.",
    "sokoban": (
        "You (A) push boxes (B) onto all goals (G); a box on a goal is b, you on a goal are a. Push a box by moving "
        "against it, if the cell beyond it is free; you cannot pull. # is a wall, . is floor."
    ),
}
_ASK = "Reply with one move: up, down, left or right."


class GridWorld(TextEnv):
    """Find the way over a frozen lake or through a maze, or push boxes onto their goals.

    Every observation is a map. A reply is one move: ``up``, ``down``, ``left`` or ``right``. The agent may think
    aloud; the last move that it names counts. A move against a wall changes nothing. A reply without a move changes
    nothing either, takes a turn, and costs 0.02.

    - **Lake**: the agent (A) has to reach the goal (G). A hole (O) ends the episode.
    - **Maze**: the same without holes; exactly one way leads from one cell to another.
    - **Sokoban**: all boxes (B) have to be on goals at once. They can be pushed, one at a time, and not pulled, so a
      box may be stuck for good.

    The reward is 1 when the goal is reached, and 0 at a hole or when turns run out. Nothing is paid on the way, so
    there is nothing to gain by wandering. The last ``info`` counts the replies without a move as ``invalid``.

    A search backwards from the goal finds where to begin, so every map can be solved, and in half of the turns.

    | difficulty | lake | maze | Sokoban | boxes | moves of the shortest solution | turns |
    |---|---|---|---|---|---|---|
    | 0 | 4x4 | 5x5 | 4x4 | 1 | 3 to 6 | 15 |
    | 1 | 6x6 | 7x7 | 5x5 | 1 | 6 to 12 | 30 |
    | 2 | 8x8 | 9x9 | 5x5 | 2 | 9 to 18 | 45 |
    | 3 | 10x10 | 13x13 | 6x6 | 2 | 14 to 28 | 60 |

    Args:
        difficulty: 0 to 3.
        kind: ``"lake"``, ``"maze"``, ``"sokoban"``, or ``"any"`` to draw one per episode.
        split: ``"train"`` or ``"eval"``; no map belongs to both, wherever one begins.
        options: What every `TextEnv` takes: `render_mode`, `scorer`.
    """

    def __init__(
        self, difficulty: int = 1, kind: Kind | Literal["any"] = "any", split: Split = "train", **options: Any
    ) -> None:
        super().__init__(**options)
        check_difficulty_and_split(difficulty, len(LEVELS), split)
        one_of("kind", kind, (*_KINDS, "any"))
        self.level = LEVELS[difficulty]
        self.kind = kind
        self.split: Split = split
        self.max_turns = self.level.turns

    def begin(self) -> str:
        """Draw a map and show it."""
        kind = _KINDS[self.np_random.integers(len(_KINDS))] if self.kind == "any" else self.kind
        grid = generate_grid(self.np_random, kind, self.level, self.split)
        self.episode.task = grid
        self.state = grid.start
        return f"{_RULES[grid.kind]} You have {self.level.turns} turns. {_ASK}\n{self._map}"

    @property
    def _map(self) -> str:
        board: str = self.episode.task.board.drawn(self.state)
        return board

    def respond(self, action: str) -> Outcome:
        """Make the move that the reply names last."""
        name = last_named(action, MOVES)
        if name is None:
            return Outcome(f"That names no move. {_ASK}\n{self._map}", INVALID, {"invalid": 1.0})
        board = self.episode.task.board
        before, self.state = self.state, board.moved(self.state, MOVES[name])
        over = board.solved(self.state) or board.lost(self.state)
        said = "You fell into a hole." if board.lost(self.state) else "Solved." if over else self._map
        if self.state == before:
            said = f"You cannot move {name}.\n{said}"
        return Outcome(said, parts={"invalid": 0.0}, over=over)

    def score(self, episode: Episode) -> Score:
        """Pay for the goal."""
        solved = float(episode.task.board.solved(self.state))
        return Score(solved, {"solved": solved})

    def succeeded(self, score: Score) -> bool:
        """Tell whether the goal was reached, whatever scored it."""
        solved: bool = self.episode.task.board.solved(self.state)
        return solved

    def expert(self) -> Iterator[str]:
        """Take as few moves as there can be."""
        yield from self._shortest()

    def mistake(self) -> Iterator[str]:
        """Begin as the expert does, then step into a hole beside the way, or keep to one direction to the end."""
        way = self._shortest()
        yield from way[: self.np_random.integers(len(way))]
        board, state = self.episode.task.board, self.state
        reached = {name: board.moved(state, move) for name, move in MOVES.items()}
        if holes := [name for name, after in reached.items() if board.lost(after)]:
            yield str(self.np_random.choice(holes))
            return
        aimless = str(self.np_random.choice([name for name, after in reached.items() if not board.solved(after)]))
        for _ in range(self.level.turns):
            solves = board.solved(board.moved(self.state, MOVES[aimless]))
            yield "wait" if solves else aimless

    def _shortest(self) -> list[str]:
        solution = shortest_solution(self.episode.task.board, self.episode.task.start)
        assert solution is not None, "every map can be solved"
        return solution

"""`TwoPlayerGame`: what games for two have in common: who plays whom, illegal moves, and what is told to whom."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np

from llmgym.envs.games.match import Computed, Match
from llmgym.envs.splits import Split, check_difficulty_and_split, draw_in_split, one_of
from llmgym.envs.text_env import TextEnv
from llmgym.types import Episode, Outcome, Score

DIFFICULTIES = 4
FORGIVEN = 2  # illegal replies of a player in a game


class TwoPlayerGame(TextEnv):
    """A game for two, of which the agent plays one side and an opponent in the environment the other.

    Which side begins is drawn. A reply that is no legal move is answered with what can be played; a player may give
    two of them in a game, and loses with the third. The last ``info`` counts them as ``illegal``.

    Args:
        difficulty: 0 to 3.
        split: ``"train"`` or ``"eval"``.
        opponent: ``"random"``, ``"scripted"`` or ``"optimal"``.
        options: What every `TextEnv` takes: `render_mode`, `scorer`.
    """

    top_score = None  # chance or a good opponent may leave less
    match: Match

    def __init__(
        self, difficulty: int = 1, split: Split = "train", opponent: Computed = "scripted", **options: Any
    ) -> None:
        super().__init__(**options)
        check_difficulty_and_split(difficulty, DIFFICULTIES, split)
        one_of("opponent", opponent, get_args(Computed))
        self.difficulty = difficulty
        self.max_turns = self.most_moves + FORGIVEN
        self.split: Split = split
        self.opponent: Computed = opponent

    @property
    @abstractmethod
    def most_moves(self) -> int:
        """Moves of one player in a game, at most."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Match:
        """Draw a game of the difficulty."""

    def begin(self) -> str:
        """Draw a game and the side that the agent plays, and let the opponent move if it begins."""
        self.match = draw_in_split(self.draw, self.np_random, self.split)
        self.episode.task = self.match
        self.player = int(self.np_random.integers(2))
        self._dice = iter(self.match.dice)
        self._illegal, self._forfeit = 0, False
        self._let_the_opponent_move()
        return f"{self.match.rules}\n{self._told()}"

    def respond(self, action: str) -> Outcome:
        """Make the move that a reply means, and let the opponent answer it."""
        move = self.match.read(action)
        if move is None:
            self._illegal += 1
            self._forfeit = self._illegal > FORGIVEN
            said = f"That was illegal reply {self._illegal}, and you have lost." if self._forfeit else self._refusal()
            return Outcome(said, parts={"illegal": 1.0}, over=self._forfeit)
        self.match.play(move)
        self._let_the_opponent_move()
        return Outcome(self._told(), parts={"illegal": 0.0}, over=self.match.over)

    def _let_the_opponent_move(self) -> None:
        while not self.match.over and self.match.mover != self.player:
            self.match.play(self.match.move_of(self.opponent, next(self._dice)))

    def _told(self) -> str:
        """Return what the agent has yet to be told, and what it sees if it is to move."""
        news, self.match.told[self.player][:] = list(self.match.told[self.player]), []
        return "\n".join(news if self.match.over else [*news, self.match.view])

    def _refusal(self) -> str:
        return (
            f"That is no legal move; {FORGIVEN - self._illegal + 1} more and you lose. Name one and nothing "
            f"else.\n{self.match.view}"
        )

    def score(self, episode: Episode) -> Score:
        """Pay what the game says; nothing to who lost by illegal moves."""
        return Score(0.0 if self._forfeit else self.match.score(self.player))

    def succeeded(self, score: Score) -> bool:
        """Tell whether the agent did not lose: it earned at least one half."""
        return score.value is not None and score.value >= 0.5 - 1e-9

    def expert(self) -> Iterator[str]:
        """Play what is best on average against the opponent."""
        while True:
            yield self.match.best_reply(self.opponent, self.np_random.random())

    def mistake(self) -> Iterator[str]:
        """Insist on moves that cannot be made."""
        while True:
            yield self.match.impossible

"""`TwoPlayerGame`: what games for two have in common: who plays whom, illegal moves, and what is told to whom."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np

from llmgym.envs.games.match import Computed, Match, Opponent
from llmgym.envs.splits import Split, check_difficulty_and_split, draw_in_split, one_of
from llmgym.envs.text_env import TextEnv
from llmgym.types import Episode, Outcome, Player, Score

DIFFICULTIES = 4
FORGIVEN = 2  # illegal replies of a player in a game

_SEATS: dict[Opponent, tuple[Player, Player]] = {"self": ("learner", "learner"), "frozen": ("learner", "frozen")}


class TwoPlayerGame(TextEnv):
    """A game for two, of which the agent plays one side and an opponent in the environment the other.

    Which side begins is drawn. A reply that is no legal move is answered with what can be played; a player may give
    two of them in a game, and loses with the third. The last ``info`` counts them as ``illegal``.

    Args:
        difficulty: 0 to 3.
        split: ``"train"`` or ``"eval"``.
        opponent: ``"random"``, ``"scripted"`` or ``"optimal"``; ``"self"`` or ``"frozen"`` for a second seat, which
            the policy that learns plays too, or one whose weights stay as they are.
        options: What every `TextEnv` takes: `render_mode`, `scorer`.
    """

    top_score = None  # chance or a good opponent may leave less
    match: Match

    def __init__(
        self, difficulty: int = 1, split: Split = "train", opponent: Opponent = "scripted", **options: Any
    ) -> None:
        super().__init__(**options)
        check_difficulty_and_split(difficulty, DIFFICULTIES, split)
        one_of("opponent", opponent, (*get_args(Computed), "frozen", "self"))
        self.difficulty = difficulty
        self.max_turns = self.most_moves + FORGIVEN
        self.split: Split = split
        self.opponent: Opponent = opponent
        self._computed: Computed = "optimal" if opponent == "self" or opponent == "frozen" else opponent
        self.seats = _SEATS.get(opponent, ("learner",))

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
        self._shift = int(self.np_random.integers(2))
        self._dice = iter(self.match.dice)
        self._illegal, self._loser = [0, 0], -1
        self._greeted: set[int] = set()
        self._let_others_move()
        return self._told()

    def respond(self, action: str) -> Outcome:
        """Make the move that a reply means, and let the opponent answer it."""
        move = self.match.read(action)
        if move is None:
            return self._refuse(self.player)
        self.match.play(move)
        if not self.match.over:
            self._let_others_move()
        return Outcome(self._told(), parts={"illegal": 0.0}, over=self.match.over)

    @property
    def player(self) -> int:
        """The player of the match that the seat whose turn it is plays."""
        return self._player_of(self.seat)

    def _player_of(self, seat: int) -> int:
        return (seat + self._shift) % 2

    def _let_others_move(self) -> None:
        """Give the turn to the seat whose move it is; where there is one seat, let the opponent move."""
        if len(self.seats) > 1:
            self.seat = (self.match.mover - self._shift) % 2
        while not self.match.over and self.match.mover != self.player:
            self.match.play(self.match.move_of(self._computed, next(self._dice)))

    def _told(self) -> str:
        """Return what the seat has yet to be told, and what it sees if it is to move."""
        player = self.player
        news = [] if player in self._greeted else [self.match.rules]
        self._greeted.add(player)
        news += self.match.told[player]
        self.match.told[player].clear()
        return "\n".join(news if self.match.over else [*news, self.match.view])

    def _refuse(self, player: int) -> Outcome:
        """Answer a reply that is no legal move; after too many the player has lost."""
        self._illegal[player] += 1
        left = FORGIVEN + 1 - self._illegal[player]
        if not left:
            self._loser = player
            return Outcome("That was one illegal reply too many: you have lost.", parts={"illegal": 1.0}, over=True)
        said = f"That is no legal move; {left} more and you lose. Name one and nothing else."
        return Outcome(f"{said}\n{self.match.view}", parts={"illegal": 1.0})

    def score(self, episode: Episode) -> Score:
        """Pay what the game says; nothing to who lost by illegal moves."""
        player = self._player_of(episode.seat)
        if self._loser >= 0:
            return Score(0.0 if player == self._loser else self.match.forfeited(player))
        return Score(self.match.score(player))

    def succeeded(self, score: Score) -> bool:
        """Tell whether the agent did not lose: it earned at least one half."""
        return score.value is not None and score.value >= 0.5 - 1e-9

    def expert(self) -> Iterator[str]:
        """Play what is best on average against the opponent."""
        while True:
            yield self.match.best_reply(self._computed, self.np_random.random())

    def mistake(self) -> Iterator[str]:
        """Insist on moves that cannot be made."""
        while True:
            yield self.match.impossible

"""Kuhn poker: three cards, one chip to bet, and a reason to bluff."""

import itertools
import re

import numpy as np

from llmgym.envs.games.kuhn_strategies import CARDS, FIRST, STRATEGIES, best_answer, pays
from llmgym.envs.games.match import Computed, Match, alone, sentences
from llmgym.envs.games.table import TwoPlayerGame

HANDS = (2, 4, 6, 10)  # of a match, per difficulty
MOST_CHIPS = 2  # of a hand

_DEALS = list(itertools.permutations(CARDS, 2))
_CODES = {"check": "c", "bet": "b", "call": "k", "fold": "f"}
_DONE = {"check": "checks", "bet": "bets", "call": "calls", "fold": "folds"}
_NAMED = re.compile(rf"\b(?:{'|'.join(_CODES)})\b")
_MOVE = alone("|".join(_CODES))


class KuhnMatch(Match):
    """Several hands, of which the players begin one after another.

    Args:
        deals: The cards of players 0 and 1 in each hand.
        dice: See `Match`.
    """

    def __init__(self, deals: tuple[tuple[str, str], ...], dice: tuple[float, ...]) -> None:
        super().__init__(dice)
        self.deals = deals
        self.hand, self.done = 0, ""  # the hand that is played, and what was done in it
        self.chips = 0  # that player 0 has won, and player 1 lost

    @property
    def content(self) -> str:
        """See `Match`; the opponent's luck is part of it, since there are so few deals."""
        return f"{self.deals} {self.dice}"

    @property
    def rules(self) -> str:
        """See `Match`."""
        return (
            f"We play {len(self.deals)} hands of Kuhn poker. The deck is J, Q, K; K is the highest. In each hand we "
            "pay a chip and get a card that the other cannot see. The first player checks or bets a chip. After a "
            "check the second player checks or bets. Whoever faces a bet calls it with a chip or folds. If nobody "
            "folds, the higher card takes all chips. We take turns in being first. Win as many chips as you can."
        )

    @property
    def legal(self) -> tuple[str, str]:
        """The moves that can be made now."""
        return ("call", "fold") if self.done.endswith("b") else ("check", "bet")

    @property
    def view(self) -> str:
        """See `Match`."""
        card, (one, other) = self.deals[self.hand][self.mover], self.legal
        return f"Hand {self.hand + 1} of {len(self.deals)}. You hold {card}. Reply with {one} or {other}."

    @property
    def impossible(self) -> str:
        """See `Match`."""
        return "bet" if self.done.endswith("b") else "call"

    def read(self, reply: str) -> str | None:
        """Return the move that is a sentence of its own; the last sentence that names a move counts.

        Examples:
            >>> match = KuhnMatch((("J", "K"),), ())
            >>> match.read("Should I check? I bet.")
            'bet'
            >>> match.read("I will not bet.") is None
            True
        """
        named = [sentence for sentence in sentences(reply) if _NAMED.search(sentence)]
        move = _MOVE.fullmatch(named[-1]) if named else None
        return move["said"] if move and move["said"] in self.legal else None

    def play(self, move: str) -> None:
        """See `Match`."""
        self.told[1 - self.mover].append(f"Your opponent {_DONE[move]}.")
        self.done += _CODES[move]
        self.mover = 1 - self.mover
        beginner = self.hand % 2
        cards = self.deals[self.hand]
        won = pays(cards[beginner], cards[1 - beginner], self.done)
        if won is None:
            return
        won = won if beginner == 0 else -won
        self.chips += won
        for player, own in enumerate((won, -won)):
            shown = "" if move == "fold" else f" Your opponent holds {cards[1 - player]}."
            chips = f"{abs(own)} chip{'s' * (abs(own) > 1)}"
            self.told[player].append(f"{shown} You {'win' if own > 0 else 'lose'} {chips}.".strip())
        self.hand, self.done = self.hand + 1, ""
        self.mover, self.over = self.hand % 2, self.hand == len(self.deals)

    def score(self, player: int) -> float:
        """Return a half, and up to 0.4 more or less for the chips; 0 while the game goes on."""
        if not self.over:
            return 0.0
        share = self.chips / (MOST_CHIPS * len(self.deals))
        return 0.5 + 0.4 * (share if player == 0 else -share)

    def forfeited(self, player: int) -> float:
        """Return 1: the match is won."""
        return 1.0

    def move_of(self, opponent: Computed, die: float) -> str:
        """See `Match`."""
        return self._by_chance(STRATEGIES[opponent][self._spot], die)

    def best_reply(self, opponent: Computed, die: float) -> str:
        """See `Match`."""
        return self._by_chance(best_answer(opponent, as_first=self.done in FIRST)[self._spot], die)

    @property
    def _spot(self) -> tuple[str, str]:
        """What the player whose move it is knows."""
        return self.deals[self.hand][self.mover], self.done

    def _by_chance(self, chance: float, die: float) -> str:
        pays_chip = die < chance
        return ("call" if pays_chip else "fold") if self.done.endswith("b") else ("bet" if pays_chip else "check")


class KuhnPoker(TwoPlayerGame):
    """Kuhn poker, the smallest game in which bluffing pays (Kuhn 1950): several hands against one opponent.

    The deck is J, Q, K. In each hand both players pay a chip and get a card. The first player checks or bets a chip;
    after a check the second one checks or bets; whoever faces a bet calls or folds. The higher card wins, unless
    somebody folds. A reply is ``check``, ``bet``, ``call`` or ``fold``. The last sentence that names one counts, and
    says nothing else: ``bet`` or ``I bet``, and not ``I would bet``. The players are first in turn.

    The score is a half, plus 0.4 times the chips that were won in all hands, less those that were lost, divided by two
    chips for each hand. A match that is cut off scores 0. A reply that is no legal move is answered with what can be
    played; the third in a match loses it, which scores 0. The last ``info`` counts them as ``illegal``. An episode is a
    success if no chips were lost.

    Opponents: ``"random"`` tosses a coin. ``"scripted"`` bets with a king only and calls with all but a jack.
    ``"optimal"`` plays an equilibrium, against which nobody wins more than 1/18 chip a hand as the second player, or
    loses less than that as the first. The expert plays the best of all strategies against the opponent, without
    knowing its card.

    With ``"self"``, the policy that learns plays both sides, and each gives a trajectory of its own. With ``"frozen"``,
    it plays one side, and the other is played with the weights that it had at the start, or by ``--frozen-model``.
    ``--eval-env-kwargs opponent=optimal`` judges either against a player that does not learn.

    | difficulty | hands |
    |---|---|
    | 0 | 2 |
    | 1 | 4 |
    | 2 | 6 |
    | 3 | 10 |

    Args:
        difficulty: 0 to 3.
        split: ``"train"`` or ``"eval"``; no match belongs to both: deals and the opponent's luck, taken together. At
            difficulties 0 and 1 the deals alone are in both, and they are all that matters against the scripted
            opponent, which leaves nothing to luck.
        opponent: ``"random"``, ``"scripted"`` or ``"optimal"``; or ``"self"`` or ``"frozen"``, in training.
        options: What every `TextEnv` takes: `render_mode`, `scorer`.
    """

    @property
    def most_moves(self) -> int:
        """See `TwoPlayerGame`."""
        return 2 * HANDS[self.difficulty]

    def draw(self, rng: np.random.Generator) -> KuhnMatch:
        """Deal all hands."""
        hands = HANDS[self.difficulty]
        deals = tuple(_DEALS[i] for i in rng.integers(len(_DEALS), size=hands))
        return KuhnMatch(deals, tuple(rng.random(3 * hands).tolist()))

"""Negotiation: two players divide things that each of them values differently."""

import functools
import itertools
import math
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from llmgym.envs.games.match import Computed, Match, alone, pick, sentences
from llmgym.envs.games.table import TwoPlayerGame

TOTAL = 20  # what all things together are worth to a player
COST = 0.1  # share of everything that an exchange of two moves uses up
FIRM, SOFT = 0.9, 0.4  # share of everything that the scripted opponent asks for first and last

_THINGS = ("books", "hats", "balls")
_ACCEPT = "accept"
_ACCEPTANCE = alone(rf"{_ACCEPT}(?:ed)?(?: (?:it|this|that|(?:the|this|that|your) (?:offer|deal)))?")
_ROUNDING = 1e-9

Keep = tuple[int, ...]


class Level(NamedTuple):
    """What a difficulty asks for."""

    things: int  # kinds of them
    most: int  # of a kind
    rounds: int  # of two moves each


LEVELS = (Level(2, 5, 2), Level(2, 6, 3), Level(3, 4, 4), Level(3, 5, 5))


class NegotiationMatch(Match):
    """Offers in turn until one is accepted or there are no moves left.

    Args:
        pool: How many there are of each thing.
        values: What one of each thing is worth to player 0, and to player 1.
        rounds: Of two moves each.
        dice: See `Match`.
    """

    def __init__(self, pool: Keep, values: tuple[Keep, Keep], rounds: int, dice: tuple[float, ...] = ()) -> None:
        super().__init__(dice)
        self.pool, self.values, self.moves = pool, values, 2 * rounds
        self.made = 0  # moves so far
        self.offer: Keep | None = None  # what the mover's opponent would leave to the mover
        self.deal: tuple[float, float] | None = None  # what each player has got

    @property
    def content(self) -> str:
        """See `Match`."""
        return f"{self.pool} {self.values} {self.moves}"

    @property
    def things(self) -> tuple[str, ...]:
        """What there is to divide."""
        return _THINGS[: len(self.pool)]

    @property
    def rules(self) -> str:
        """See `Match`."""
        return (
            f"We divide {_listed(self.pool)} between us. Both have to get something. Each of us values them in a way "
            f"that the other does not know; to each, all together are worth {TOTAL}. We make offers in turn, until one "
            f"is accepted. After every two moves a deal is worth {COST:.0%} of the whole less. There are {self.moves} "
            "moves; without a deal we both get nothing."
        )

    @property
    def view(self) -> str:
        """See `Match`."""
        worth = ", ".join(f"{thing} {value}" for thing, value in zip(self.things, self.values[self.mover], strict=True))
        example = _json(tuple((count + 1) // 2 for count in self.pool))
        accept = "" if self.offer is None else f' or "{_ACCEPT}"'
        return (
            f"Move {self.made + 1} of {self.moves}. One of each is worth to you: {worth}. "
            f"Reply with what you keep, such as {example}{accept}."
        )

    @property
    def impossible(self) -> str:
        """See `Match`."""
        return _json(tuple(count + 1 for count in self.pool))

    def read(self, reply: str) -> str | None:
        """Return the offer that a reply makes, or that it accepts; the last of what it says counts.

        A sentence of its own accepts. Numbers are read wherever they are next to a thing.

        Examples:
            >>> match = NegotiationMatch((3, 1), ((2, 4), (3, 1)), rounds=2)
            >>> match.read("I keep 2 books, and hats: 0. Do you accept?")
            '{"books": 2, "hats": 0}'
            >>> match.read("accept") is None  # there is no offer yet
            True
        """
        keep: dict[str, str] = {}
        accepts = False
        for sentence in sentences(reply):
            named = list(_numbers(self.things).finditer(sentence))
            for found in named:
                keep[f"{(found['thing'] or found['after']).removesuffix('s')}s"] = found["count"] or found["before"]
            if named or _ACCEPT in sentence:
                accepts = _ACCEPTANCE.fullmatch(sentence) is not None
        if accepts:
            return None if self.offer is None else _ACCEPT
        wanted = _json(keep.get(thing, "") for thing in self.things)
        return wanted if wanted in map(_json, self._splits) else None

    def play(self, move: str) -> None:
        """See `Match`."""
        mover, other = self.mover, 1 - self.mover
        self.made, self.mover = self.made + 1, other
        if move == _ACCEPT:
            assert self.offer is not None, "a legal move"
            self._close(mover, self.offer)
            return
        keep = tuple(int(number) for number in re.findall(r"\d+", move))
        self.offer = self._rest(keep)
        self.told[other].append(f"Your opponent keeps {_listed(keep)}, and leaves you {_listed(self.offer)}.")
        if self.made == self.moves:
            self.over = True
            for told in self.told:
                told.append("There are no moves left, and there is no deal.")

    def _close(self, mover: int, share: Keep) -> None:
        """End with a deal that gives the mover a share, as the move before offered it."""
        shares = (share, self._rest(share)) if mover == 0 else (self._rest(share), share)
        left = self.left(self.made - 2)
        self.deal = (left * self.worth(0, shares[0]) / TOTAL, left * self.worth(1, shares[1]) / TOTAL)
        self.over = True
        for player in range(2):
            by = "You accept" if player == mover else "Your opponent accepts"
            self.told[player].append(f"{by}. You get {self.deal[player]:.0%} of what everything is worth to you.")

    def score(self, player: int) -> float:
        """Return the share that a player has got of what everything is worth to it."""
        return 0.0 if self.deal is None else self.deal[player]

    def forfeited(self, player: int) -> float:
        """Return 0: there is no deal."""
        return 0.0

    def left(self, made: int) -> float:
        """Return how much is left of everything for an offer that is made after so many moves."""
        return 1 - COST * (made // 2)

    def worth(self, player: int, share: Keep) -> int:
        """Return what things are worth to a player, of `TOTAL`."""
        return sum(count * value for count, value in zip(share, self.values[player], strict=True))

    def _rest(self, keep: Keep) -> Keep:
        return tuple(count - kept for count, kept in zip(self.pool, keep, strict=True))

    @functools.cached_property
    def _splits(self) -> list[Keep]:
        """Everything that a player can keep so that both get something."""
        every = itertools.product(*(range(count + 1) for count in self.pool))
        return [keep for keep in every if 0 < sum(keep) < sum(self.pool)]

    # What opponents do.

    def move_of(self, opponent: Computed, die: float) -> str:
        """See `Match`."""
        return {"random": self._any, "scripted": self._conceding, "optimal": self._perfect}[opponent](die)

    def best_reply(self, opponent: Computed, die: float) -> str:
        """See `Match`; against the scripted and the optimal opponent, knowing what the things are worth to it."""
        return {"random": self._demanding, "scripted": self._exploiting, "optimal": self._perfect}[opponent](die)

    def _any(self, die: float) -> str:
        """Accept with probability one half, and offer anything."""
        if self.offer is not None and die < 0.5:
            return _ACCEPT
        return pick([_json(keep) for keep in self._splits], die * 2 % 1)

    def _greediest(self, player: int) -> Keep:
        """Return what is worth most to a player and leaves something to the other one."""
        return max(self._splits, key=lambda keep: self.worth(player, keep))

    def _asks(self, player: int, made: int) -> int:
        """Return what a scripted opponent asks for, of `TOTAL`, after so many moves; no more than it can get."""
        asked = math.ceil(TOTAL * (FIRM - (FIRM - SOFT) * made / (self.moves - 1)) - _ROUNDING)
        return min(asked, self.worth(player, self._greediest(player)))

    def _conceding(self, die: float) -> str:
        """Ask for less with every move; accept what is as good, and keep no more than that."""
        asked = self._asks(self.mover, self.made)
        if self.offer is not None and self.worth(self.mover, self.offer) >= asked:
            return _ACCEPT
        enough = [keep for keep in self._splits if self.worth(self.mover, keep) >= asked]
        least = min(self.worth(self.mover, keep) for keep in enough)
        return pick([_json(keep) for keep in enough if self.worth(self.mover, keep) == least], die)

    def _exploiting(self, die: float) -> str:
        """Offer what the scripted opponent just accepts, at the move at which that is worth most."""
        other = 1 - self.mover
        by_move = {made: self._best_offer(other, self._asks(other, made + 1)) for made in self._own_moves}
        worth = {made: self.left(made) * self.worth(self.mover, keep) for made, keep in by_move.items()}
        if self._standing >= max(worth.values(), default=0.0) and self.offer is not None:
            return _ACCEPT
        if worth[self.made] < max(worth.values()):
            return _json(self._greediest(self.mover))  # which it may not accept: wait until it asks for less
        return _json(by_move[self.made])

    def _demanding(self, die: float) -> str:
        """Ask a random opponent for as much as can be; accept what is worth more on average."""
        hoped = 0.0
        for made in reversed(self._own_moves):
            offers = [self.left(made + 1) * self.worth(self.mover, keep) for keep in self._splits]
            later = sum(max(offer, hoped) for offer in offers) / len(offers) if made + 2 < self.moves else 0.0
            hoped = 0.5 * self.left(made) * self.worth(self.mover, self._greediest(self.mover)) + 0.5 * later
        return _ACCEPT if self.offer is not None and self._standing >= hoped else _json(self._greediest(self.mover))

    def _perfect(self, die: float) -> str:
        """Play the equilibrium of two players that know everything."""
        hoped, _, keep = self._equilibrium[self.made]
        return _ACCEPT if self.offer is not None and self._standing >= hoped - _ROUNDING else _json(keep)

    @functools.cached_property
    def _equilibrium(self) -> list[tuple[float, float, Keep]]:
        """What an offer at each move brings to who makes it and to the other one, and what it keeps."""
        plans = [(0.0, 0.0, self._greediest(1))]  # nobody can accept the last one
        for made in reversed(range(self.moves - 1)):
            player, other = made % 2, 1 - made % 2
            theirs, later, _ = plans[0]  # if the other one does not accept
            keep = self._best_offer(other, theirs / self.left(made))
            own = self.left(made) * self.worth(player, keep)
            rest = self.left(made) * self.worth(other, self._rest(keep))
            plans.insert(0, (own, rest, keep) if own >= later else (later, theirs, self._greediest(player)))
        return plans

    def _best_offer(self, other: int, needed: float) -> Keep:
        """Return what is best to keep so that the rest is worth as much to the other player as it needs."""
        accepted = [keep for keep in self._splits if self.worth(other, self._rest(keep)) >= needed - _ROUNDING]
        return max(accepted, key=lambda keep: (self.worth(1 - other, keep), self.worth(other, self._rest(keep))))

    @property
    def _own_moves(self) -> range:
        """The moves from now on at which the player whose move it is can make an offer that may be accepted."""
        return range(self.made, self.moves - 1, 2)

    @property
    def _standing(self) -> float:
        """What the offer that the player can accept is worth to it; 0 if there is none."""
        return 0.0 if self.offer is None else self.left(self.made - 1) * self.worth(self.mover, self.offer)


class Negotiation(TwoPlayerGame):
    """Divide things between two players that value them differently, and do not know how the other does.

    There are two or three kinds of things. To each player, all together are worth 20. The players make offers in turn,
    until one accepts. An offer names every kind, and how many of it the agent keeps, in JSON or in words:
    ``{"books": 2, "hats": 0}`` or ``I keep 2 books and 0 hats``; both players have to get something. A sentence of its
    own accepts: ``accept``, ``I accept`` or ``I accept your offer``. The last of what a reply says counts. After every
    two moves a deal is worth 10 % of the whole less, so that it does not pay to wait for ever; it is worth what it was
    at the move of the offer.

    The score is the share that the agent has got of what everything is worth to it, and 0 without a deal; the agent is
    told it as a whole percentage. A reply that is no offer is answered with how to make one; with the third the talks
    are over, and there is no deal. The last ``info`` counts them as ``illegal``. An episode is a success if the agent
    has got at least one half.

    Opponents: ``"random"`` accepts an offer with probability one half, and makes any. ``"scripted"`` asks for 90 % of
    what everything is worth to it at the first move, for 40 % at the last, and for less with every move between them;
    it accepts what is as good. ``"optimal"`` knows what the things are worth to the agent, and plays the equilibrium,
    from the last move backwards. The expert earns the most that can be earned from the opponent on average; against the
    scripted one and the optimal one it knows what the things are worth to both.

    With ``"self"``, the policy that learns plays both sides, and each gives a trajectory of its own. With ``"frozen"``,
    it plays one side, and the other is played with the weights that it had at the start, or by ``--frozen-model``.
    ``--eval-env-kwargs opponent=optimal`` judges either against a player that does not learn.

    | difficulty | kinds of things | of a kind, at most | moves |
    |---|---|---|---|
    | 0 | 2 | 5 | 4 |
    | 1 | 2 | 6 | 6 |
    | 2 | 3 | 4 | 8 |
    | 3 | 3 | 5 | 10 |

    Args:
        difficulty: 0 to 3.
        split: ``"train"`` or ``"eval"``; no things with their values belong to both, but the same game with its
            players swapped may.
        opponent: ``"random"``, ``"scripted"`` or ``"optimal"``; or ``"self"`` or ``"frozen"``, in training.
        options: What every `TextEnv` takes: `render_mode`, `scorer`.
    """

    @property
    def most_moves(self) -> int:
        """See `TwoPlayerGame`."""
        return LEVELS[self.difficulty].rounds

    def draw(self, rng: np.random.Generator) -> NegotiationMatch:
        """Draw things, and what they are worth to each player."""
        level = LEVELS[self.difficulty]
        while True:
            pool = tuple(int(count) for count in rng.integers(1, level.most, level.things, endpoint=True))
            ranges = (range(1, TOTAL // count + 1) for count in pool)
            values = [one for one in itertools.product(*ranges) if sum(map(int.__mul__, one, pool)) == TOTAL]
            if sum(pool) > 1 and len(values) > 1:
                first, second = (values[i] for i in rng.choice(len(values), 2, replace=False))
                dice = tuple(rng.random(2 * level.rounds).tolist())
                return NegotiationMatch(pool, (first, second), level.rounds, dice)


@functools.cache
def _numbers(things: tuple[str, ...]) -> re.Pattern[str]:
    """Return what finds the numbers of things in a sentence, as they are written: also -2, 2.9 and 1/2."""
    names = "|".join(f"{thing}?" for thing in things)  # with or without the s
    number = r"[-−]?\d++(?:[.,/–-]\d++)*+(?!\w)"
    return re.compile(
        rf"(?<![\w.,/−–-])(?P<before>{number}) (?P<after>{names})\b"
        rf"|\b(?P<thing>{names})\b[\"']?\s{{0,9}}[:=]?\s{{0,9}}(?P<count>{number})"
    )


def _json(keep: Iterable[int | str]) -> str:
    return "{" + ", ".join(f'"{thing}": {count}' for thing, count in zip(_THINGS, keep, strict=False)) + "}"


def _listed(counts: Keep) -> str:
    *first, last = (
        f"{count} {thing.removesuffix('s') if count == 1 else thing}"
        for thing, count in zip(_THINGS, counts, strict=False)
    )
    return f"{', '.join(first)} and {last}"

"""Kuhn poker as a game of chance: its strategies, what they are worth, and the best answer to one (Kuhn 1950).

A strategy is the probability of putting a chip in, a bet or a call, for each card and what was done before: ``c`` for
a check, ``b`` for a bet. ``("Q", "cb")`` is a queen that has checked and faces a bet.
"""

import functools
import itertools
from collections.abc import Mapping

CARDS = "JQK"
FIRST = ("", "cb")  # what was done before the first player decides
SECOND = ("c", "b")

Strategy = Mapping[tuple[str, str], float]


def _strategy(table: str) -> Strategy:
    """Read a table whose rows are what was done, and whose columns are the cards."""
    found: dict[tuple[str, str], float] = {}
    for line in table.splitlines():
        row, *chances = line.split()
        found |= {(card, row.strip("-")): float(chance) for card, chance in zip(CARDS, chances, strict=True)}
    return found


RANDOM = _strategy("-  0.5 0.5 0.5\ncb 0.5 0.5 0.5\nc  0.5 0.5 0.5\nb  0.5 0.5 0.5")
HONEST = _strategy("-  0 0 1\ncb 0 1 1\nc  0 0 1\nb  0 1 1")
"""Bets with a king only, and calls with all but a jack: it never bluffs."""
EQUILIBRIUM = _strategy(f"-  {1 / 3} 0 1\ncb 0 {2 / 3} 1\nc  {1 / 3} 0 1\nb  0 {1 / 3} 1")
"""No strategy earns more against it than -1/18 a hand as the first player, or 1/18 as the second."""


def pays(first: str, second: str, done: str) -> int | None:
    """Return the chips that the first player wins in a hand; None while it goes on.

    Args:
        first: The first player's card.
        second: The second player's.
        done: What was done: ``c`` and ``b`` as above, ``k`` for a call, ``f`` for a fold.
    """
    stronger = 1 if CARDS.index(first) > CARDS.index(second) else -1
    return {"cc": stronger, "bk": 2 * stronger, "cbk": 2 * stronger, "bf": 1, "cbf": -1}.get(done)


def value(first: Strategy, second: Strategy) -> float:
    """Return the chips that the first player wins in a hand, on average over deals and moves."""
    deals = list(itertools.permutations(CARDS, 2))
    return sum(_value(first, second, deal, "") for deal in deals) / len(deals)


def _value(first: Strategy, second: Strategy, deal: tuple[str, str], done: str) -> float:
    won = pays(*deal, done)
    if won is not None:
        return won
    chance = first[deal[0], done] if done in FIRST else second[deal[1], done]
    pay, keep = ("k", "f") if done.endswith("b") else ("b", "c")
    return chance * _value(first, second, deal, done + pay) + (1 - chance) * _value(first, second, deal, done + keep)


@functools.cache
def best_answer(opponent: str, *, as_first: bool) -> Strategy:
    """Return a strategy that wins most against an opponent that is called by its name, of all that play by no chance.

    There are 64, and one of them is best. Against the equilibrium every sound strategy wins alike, so that the answer
    to it is itself.
    """
    if opponent == "optimal":
        return EQUILIBRIUM
    theirs = STRATEGIES[opponent]
    spots = list(itertools.product(CARDS, FIRST if as_first else SECOND))
    ours = [dict(zip(spots, bits, strict=True)) for bits in itertools.product((0.0, 1.0), repeat=len(spots))]
    return max(ours, key=lambda own: value(own, theirs) if as_first else -value(theirs, own))


STRATEGIES: Mapping[str, Strategy] = {"random": RANDOM, "scripted": HONEST, "optimal": EQUILIBRIUM}

"""Games for two: their theory by independent enumeration, fair opponents, and illegal moves that are counted."""

import itertools
import json
import math
import time
from fractions import Fraction

import gymnasium
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playing import LAZY, contents, make, played, told

import llmgym
from llmgym.envs.games import kuhn_strategies
from llmgym.envs.games.board import worth
from llmgym.envs.games.kuhn import KuhnMatch
from llmgym.envs.games.negotiation import NegotiationMatch
from llmgym.errors import ConfigError

GAMES = ["KuhnPoker", "TicTacToe", "Negotiation"]
OPPONENTS = ["random", "scripted", "optimal"]
SETTINGS = [(name, opponent) for name in GAMES for opponent in OPPONENTS]


# What all have in common.


@pytest.mark.parametrize(("name", "opponent"), SETTINGS)
def test_it_passes_the_checker_against_any_opponent_it_cannot_lose_everything_to(name: str, opponent: str) -> None:
    env = gymnasium.make(f"llmgym/{name}-v0", disable_env_checker=True, difficulty=2, opponent=opponent)
    llmgym.check_env(env, seeds=6)


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("difficulty", range(4))
def test_training_and_evaluation_share_no_task(name: str, difficulty: int) -> None:
    train, held_out = (contents(name, split, range(40), difficulty=difficulty) for split in ("train", "eval"))
    assert len(held_out) >= 3
    assert not train & held_out


@pytest.mark.parametrize(("name", "opponent"), SETTINGS)
def test_two_illegal_replies_are_forgiven_and_the_third_loses(name: str, opponent: str) -> None:
    env = make(name, opponent=opponent)
    for seed in range(5):
        env.reset(seed=seed)
        for left in (2, 1):
            seen, reward, over, _, info = env.step("I would rather not.")
            assert (reward, over, info["illegal"]) == (0.0, False, 1.0)
            assert f"{left} more and you lose" in seen
        _, reward, over, _, info = env.step("")
        assert (reward, over, info["illegal"], info["success"]) == (0.0, True, 3.0, 0.0)


@pytest.mark.parametrize("name", GAMES)
def test_forgiven_replies_do_not_cost_anything(name: str) -> None:
    env = make(name, opponent="optimal")
    plain, _ = told(env, 7, "expert")
    env.reset(seed=7)
    total, over = 0.0, False
    replies = iter(["?", "what?"])
    expert = env.expert()
    while not over:
        _, reward, over, truncated, info = env.step(next(replies, None) or next(expert))
        total, over = total + reward, over or truncated
    assert total == plain
    assert info["illegal"] == 2.0


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("policy", LAZY)
def test_lazy_policies_earn_little(name: str, policy: str) -> None:
    env = make(name, opponent="scripted")
    assert sum(played(env, seed, LAZY[policy])[0] for seed in range(20)) / 20 < 0.5


@pytest.mark.parametrize("name", GAMES)
@settings(max_examples=30)
@given(replies=st.lists(st.text(), min_size=3, max_size=6))
def test_no_reply_breaks_it(name: str, replies: list[str]) -> None:
    env = make(name, difficulty=0)
    env.reset(seed=0)
    for reply in replies:
        said, reward, over, _, _ = env.step(reply)
        assert 0.0 <= reward <= 1.0
        assert said
        if over:
            break


@pytest.mark.parametrize("name", GAMES)
def test_an_unknown_opponent_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="opponent has to be one of 'random', 'scripted'"):
        make(name, opponent="deep blue")


@pytest.mark.parametrize("name", GAMES)
def test_a_game_that_is_cut_off_earns_nothing(name: str) -> None:
    env = make(name, difficulty=0)
    env.reset(seed=0)
    assert env.finish() == (0.0, {"success": 0.0})
    env.reset(seed=0)
    env.step(next(env.expert()))
    assert env.finish()[0] == 0.0


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize(
    "text", ["\n", " ", ".", ". ", "1", "-1", "1.", "bet\n", "accept. ", "2 books ", "hats: ", "a1"]
)
def test_a_megabyte_is_read_at_once(name: str, text: str) -> None:
    env = make(name, difficulty=0)
    env.reset(seed=0)
    began = time.process_time()
    env.match.read(text * (1_000_000 // len(text)))  # type: ignore[attr-defined]
    assert time.process_time() - began < 3


# Kuhn poker.


@pytest.mark.parametrize(
    ("reply", "move"),
    [
        ("bet", "bet"),
        ("**Bet!**", "bet"),
        ("I bet.", "bet"),
        ("I’ll check", "check"),
        ("Check or bet? I will bet.", "bet"),
        ("I hold a king, so I should bet.\nbet\nGood luck!", "bet"),
        ("I will not bet", None),
        ("I won’t bet", None),
        ("I bet.\nNo, I do not bet.", None),
        ("bet?", None),
        ("check or bet", None),
        ("bet, bet", None),
        ("call", None),
        ("bets", None),
    ],
)
def test_a_move_at_poker_is_a_sentence_of_its_own(reply: str, move: str | None) -> None:
    assert KuhnMatch((("K", "Q"),), ()).read(reply) == move


TABLES = {  # chance of a bet or a call: as the first to act, facing a bet after a check, after a check, facing a bet
    "random": {card: (Fraction(1, 2),) * 4 for card in "JQK"},
    "scripted": {"J": (0, 0, 0, 0), "Q": (0, 1, 0, 1), "K": (1, 1, 1, 1)},
    "optimal": {
        "J": (Fraction(1, 3), 0, Fraction(1, 3), 0),
        "Q": (0, Fraction(2, 3), 0, Fraction(1, 3)),
        "K": (1, 1, 1, 1),
    },
}


def chips(first: str, second: str, one: tuple[Fraction, ...], two: tuple[Fraction, ...]) -> Fraction:
    """Return what the first player wins of a deal, written out as one formula over the five endings."""
    sign = 1 if "JQK".index(first) > "JQK".index(second) else -1
    bet, call = one[0], one[1]
    bet_2, call_2 = two[2], two[3]
    after_bet = call_2 * 2 * sign + (1 - call_2)
    after_check = bet_2 * (call * 2 * sign - (1 - call)) + (1 - bet_2) * sign
    return Fraction(bet * after_bet + (1 - bet) * after_check)


def most_against(opponent: str) -> Fraction:
    """Return what the best pure strategies win per hand, as the first player and the second in turn."""
    theirs, deals = TABLES[opponent], list(itertools.permutations("JQK", 2))
    total = Fraction(0)
    for card in "JQK":  # what a player does with one card does not touch what it does with another
        pure = list(itertools.product((0, 1), repeat=4))
        total += max(sum(chips(a, b, own, theirs[b]) for a, b in deals if a == card) for own in pure)
        total += max(sum(-chips(a, b, theirs[a], own) for a, b in deals if b == card) for own in pure)
    return total / (2 * len(deals))


def test_kuhns_game_is_worth_a_loss_of_one_eighteenth_to_the_first_player() -> None:
    table = TABLES["optimal"]
    deals = list(itertools.permutations("JQK", 2))
    assert sum(chips(a, b, table[a], table[b]) for a, b in deals) / 6 == Fraction(-1, 18)
    assert kuhn_strategies.value(kuhn_strategies.EQUILIBRIUM, kuhn_strategies.EQUILIBRIUM) == pytest.approx(-1 / 18)
    assert most_against("optimal") == 0  # over both places: nobody can exploit it


@pytest.mark.parametrize("opponent", OPPONENTS)
def test_kuhns_best_answers_win_what_an_enumeration_says(opponent: str) -> None:
    theirs = kuhn_strategies.STRATEGIES[opponent]
    first = kuhn_strategies.value(kuhn_strategies.best_answer(opponent, as_first=True), theirs)
    second = -kuhn_strategies.value(theirs, kuhn_strategies.best_answer(opponent, as_first=False))
    assert (first + second) / 2 == pytest.approx(float(most_against(opponent)))


@pytest.mark.parametrize("opponent", OPPONENTS)
def test_kuhns_expert_wins_its_value_on_average(opponent: str) -> None:
    env = make("KuhnPoker", difficulty=3, opponent=opponent)
    scores = [told(env, seed, "expert")[0] for seed in range(400)]
    won = [(score - 0.5) / 0.4 * 2 for score in scores]  # chips per hand
    mean = sum(won) / len(won)
    error = math.sqrt(sum((one - mean) ** 2 for one in won)) / len(won)
    assert abs(mean - float(most_against(opponent))) < 4 * error


def test_kuhns_cards_stay_hidden_until_they_are_shown() -> None:
    env = make("KuhnPoker", difficulty=3)
    for seed in range(30):
        seen, _ = env.reset(seed=seed)
        deals, mine = env.episode.task.deals, env.player  # type: ignore[attr-defined]
        assert f"Hand 1 of {len(deals)}. You hold {deals[0][mine]}." in seen
        assert "holds" not in seen


# Tic-tac-toe.


def board_of(seen: str) -> list[list[str]]:
    rows = [line.split() for line in seen.splitlines()]
    return [row[1:] for row in rows if row and row[0] in "1234" and len(row) > 3 and set(row[1:]) <= set("XO.")][-4:]


def outcome(board: list[list[str]], mark: str) -> int:
    """Return what a position is worth to who is to move, by plain search over characters."""
    size, other = len(board), "O" if mark == "X" else "X"
    lines = [*board, *zip(*board, strict=True), [board[i][i] for i in range(size)]]
    lines.append([board[i][size - 1 - i] for i in range(size)])
    if any(set(line) == {other} for line in lines):
        return -1
    best = None
    for r, c in itertools.product(range(size), repeat=2):
        if board[r][c] == ".":
            board[r][c] = mark
            value = -outcome(board, other)
            board[r][c] = "."
            best = value if best is None else max(best, value)
    return 0 if best is None else best


@pytest.mark.parametrize("difficulty", [0, 1])
def test_every_opening_of_tic_tac_toe_is_a_draw_of_perfect_play(difficulty: int) -> None:
    env = make("TicTacToe", difficulty=difficulty, opponent="optimal")
    for seed in range(8):
        seen, _ = env.reset(seed=seed)
        assert outcome(board_of(seen), "X" if "You are X" in seen else "O") == 0
        match = env.episode.task
        assert worth(match.opening, match.size) == 0


@pytest.mark.parametrize("opponent", OPPONENTS)
@pytest.mark.parametrize("difficulty", range(4))
def test_the_expert_never_loses_at_tic_tac_toe(opponent: str, difficulty: int) -> None:
    env = make("TicTacToe", difficulty=difficulty, opponent=opponent)
    scores = {told(env, seed, "expert")[0] for seed in range(25)}
    assert scores == {0.5} if opponent == "optimal" else scores <= {0.5, 1.0}


def test_the_optimal_opponent_never_loses_at_tic_tac_toe_and_the_random_one_does() -> None:
    def any_free_cell(opponent: str) -> set[float]:
        env = make("TicTacToe", difficulty=0, opponent=opponent)
        draw = lambda env, seen: str(env.np_random.choice(env.match._free))  # noqa: E731
        return {played(env, seed, draw)[0] for seed in range(80)}

    assert any_free_cell("optimal") <= {0.0, 0.5}
    assert any_free_cell("random") == {0.0, 0.5, 1.0}


def test_a_taken_cell_is_illegal() -> None:
    env = make("TicTacToe")
    env.reset(seed=1)
    taken = env.match.impossible  # type: ignore[attr-defined]
    assert env.step(f"I take {taken}")[4]["illegal"] == 1.0


# Negotiation.


def best_by_search(match: NegotiationMatch, me: int) -> float:
    """Return the most that can be earned from the scripted opponent, by trying every offer at every move."""

    def search(history: tuple[str, ...]) -> float:
        fresh = NegotiationMatch(match.pool, match.values, match.moves // 2, (0.0,) * match.moves)
        for move in history:
            fresh.play(move)
        while not fresh.over and fresh.mover != me:
            move = fresh.move_of("scripted", 0.0)
            fresh.play(move)
            history = (*history, move)
        if fresh.over:
            return fresh.score(me)
        offers = itertools.product(*(range(count + 1) for count in fresh.pool))
        moves = [json.dumps(dict(zip(fresh.things, offer, strict=True))) for offer in offers]
        return max(search((*history, move)) for move in [*moves, "accept"] if fresh.read(move))

    return search(())


def test_the_expert_earns_the_most_that_a_scripted_negotiator_grants() -> None:
    env = make("Negotiation", difficulty=0, opponent="scripted")
    for seed in range(6):
        reward, _ = told(env, seed, "expert")
        match = env.episode.task
        assert reward == pytest.approx(best_by_search(match, env.player))  # type: ignore[attr-defined]


def equilibrium_by_search(match: NegotiationMatch) -> tuple[float, float]:
    """Return what two negotiators earn that know everything, by search forwards; who is indifferent accepts."""
    pool, values = match.pool, match.values
    splits = [keep for keep in itertools.product(*(range(n + 1) for n in pool)) if 0 < sum(keep) < sum(pool)]

    def deal(made: int, keep: tuple[int, ...]) -> tuple[float, float]:
        rest = tuple(n - k for n, k in zip(pool, keep, strict=True))
        shares = (keep, rest) if made % 2 == 0 else (rest, keep)
        left = 1 - 0.1 * (made // 2)
        first, second = (
            left * sum(map(int.__mul__, share, value)) / 20 for share, value in zip(shares, values, strict=True)
        )
        return first, second

    def offering(made: int) -> tuple[float, float]:
        if made == match.moves - 1:
            return 0.0, 0.0
        mine, other, later = made % 2, 1 - made % 2, offering(made + 1)
        deals = [deal(made, keep) for keep in splits]
        taken = [one if one[other] >= later[other] - 1e-9 else later for one in deals]
        return max(taken, key=lambda one: (one[mine], one[other]))

    return offering(0)


def test_perfect_negotiators_reach_the_equilibrium() -> None:
    for difficulty, seed in itertools.product((0, 1, 2), range(5)):
        env = make("Negotiation", difficulty=difficulty, opponent="optimal")
        reward, _ = told(env, seed, "expert")
        match, me = env.episode.task, env.player  # type: ignore[attr-defined]
        assert reward == pytest.approx(equilibrium_by_search(match)[me])
        assert match.score(1 - me) == pytest.approx(equilibrium_by_search(match)[1 - me])


@pytest.mark.parametrize(
    ("reply", "move"),
    [
        ('{"books": 2, "hats": 0}', '{"books": 2, "hats": 0}'),
        ("I keep 1 books and 1 hats.", '{"books": 1, "hats": 1}'),
        ("I keep 1 book and 1 hat.", '{"books": 1, "hats": 1}'),
        ("hats: 0, Books = 1", '{"books": 1, "hats": 0}'),
        ("Not 3 books and 0 hats. I say 2 books and 1 hats", '{"books": 2, "hats": 1}'),
        ("I accept", "accept"),
        ("You keep 1 books and 0 hats? Accepted.", "accept"),
        ("I do not accept. 3 books and 0 hats", '{"books": 3, "hats": 0}'),
        ("I cannot accept", None),
        ("3 books and 1 hats", None),  # nothing is left
        ("4 books and 0 hats", None),
        ("2 books", None),
        ("books: 99999999999999999999999999, hats: 1", None),
        ("unacceptable", None),
        ('"accept"', "accept"),
        ("Is this fair? I will accept your offer.", "accept"),
        ("I keep 2 books and 1 hat. Do you accept?", '{"books": 2, "hats": 1}'),
        ("I keep 2 books and 1 hat, or accept?", '{"books": 2, "hats": 1}'),
        ("I keep 2 books and 1 hat. Accepted?", '{"books": 2, "hats": 1}'),
        ('{\n"books": 2,\n"hats": 1\n}', '{"books": 2, "hats": 1}'),
        ("- 2 books\n- 1 hat", '{"books": 2, "hats": 1}'),
        ("I do not want to accept", None),
        ("I refuse to accept", None),
        ("Accept? No.", None),
        ("I accept nothing", None),
        ("I wouldn’t accept that", None),
        ("I accept. No, I do not accept.", None),
        ("I keep -2 books and 1 hats", None),
        ("I keep 2 books, no, -2 books and 1 hats", None),
        ('{"books": 2.9, "hats": 1}', None),
        ('{"books": 2.9e0, "hats": 1}', None),
        ("1/2 books 1 hats", None),
        ("2,5 books and 1 hat", None),
        ("1-2 books and 1 hat", None),
    ],
)
def test_offers_are_read_from_json_and_from_words(reply: str, move: str | None) -> None:
    match = NegotiationMatch((3, 1), ((4, 8), (5, 5)), rounds=2)
    match.play('{"books": 2, "hats": 1}')
    assert match.read(reply) == move


def test_a_deal_is_worth_less_with_every_exchange() -> None:
    for waited, left in [(0, 1.0), (1, 0.9), (2, 0.8)]:
        match = NegotiationMatch((3, 1), ((4, 8), (5, 5)), rounds=4)
        for _ in range(2 * waited):
            match.play('{"books": 3, "hats": 0}')
        match.play('{"books": 2, "hats": 1}')
        match.play("accept")
        assert match.over
        assert (match.score(0), match.score(1)) == (pytest.approx(left * 16 / 20), pytest.approx(left * 5 / 20))

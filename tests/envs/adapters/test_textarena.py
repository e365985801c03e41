"""TextArena's games as environments: pure by their seeds although the package draws from global generators."""

import random
from typing import Any

import numpy as np
import pytest
from episodes import episodes, episodes_elsewhere

import llmgym
from llmgym.errors import ConfigError, UnknownNameError
from llmgym.registry import make_env

pytest.importorskip("textarena", reason="textarena is not installed")

from llmgym.envs.adapters.textarena import NO_RANDOM_MOVES, REFUSED

GAMES = [
    "2048-v0",
    "GuessTheNumber-v0",
    "Minesweeper-v0",
    "TicTacToe-v0",
    "KuhnPoker-v0",
    "IteratedPrisonersDilemma-v0",
]
JUNK = ["", "[", "[]", "x" * 20_000, "[99999999999999999999]", "[-1]", "\x00", "[nan]", '{"move": 1}', "[0]", "[1] [2]"]


def make(name: str, **options: Any) -> Any:
    return make_env(f"textarena:{name}", **options).unwrapped


def first_free_cell(told: str, rng: np.random.Generator) -> str:
    """Return the first move of those listed last."""
    return told.rpartition("Available Moves: ")[2].split(",")[0].strip().strip("'")


@pytest.mark.parametrize(
    "name", ["GuessTheNumber-v0", "GuessTheNumber-v0-hardcore", "Mastermind-v0", "TowerOfHanoi-v0"]
)
def test_the_expert_wins_fifty_episodes(name: str) -> None:
    env = make(name)
    for seed in range(50):
        env.reset(seed=seed)
        *_, last = [env.step(reply) for reply in env.expert()]
        assert last[1:3] == (1.0, True)
        assert last[4]["success"] == 1.0


@pytest.mark.parametrize("name", GAMES)
def test_it_passes_the_checkers(name: str) -> None:
    llmgym.check_env(make_env(f"textarena:{name}", render_mode="ansi"), seeds=5)


@pytest.mark.parametrize("name", GAMES)
def test_an_episode_is_the_same_in_another_process_with_another_order_of_sets_and_another_global_seed(
    name: str,
) -> None:
    name = f"textarena:{name}"
    assert episodes(name, [0, 1, 2]) == episodes_elsewhere(name, [2, 1, 0], hash_seed=77)


def test_games_that_are_played_in_turn_do_not_change_each_other_nor_the_global_generator() -> None:
    moves = ["[left]", "[up]", "[right]", "[down]"] * 3
    alone = make("2048-v0-8x8")
    expected = [alone.reset(seed=5)[0], *(alone.step(move)[0] for move in moves)]
    one, two = make("2048-v0-8x8"), make("2048-v0-8x8")
    random.seed(1)
    before = random.getstate()
    found = [one.reset(seed=5)[0]]
    for move in moves:
        two.reset(seed=6)
        found.append(one.step(move)[0])
        two.step(move)
    assert found == expected
    assert random.getstate() == before


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("reply", JUNK, ids=repr)
def test_no_reply_raises_and_junk_does_not_win(name: str, reply: str) -> None:
    env = make(name)
    env.reset(seed=1)
    for _ in range(100):
        _, reward, terminated, truncated, _ = env.step(reply)
        if terminated or truncated:
            break
    assert terminated or truncated
    assert reward <= 1.0
    if not any(character.isdigit() for character in reply):
        assert reward < 1.0 or name == "IteratedPrisonersDilemma-v0"  # there silence is a move


def test_a_wrong_move_is_explained_once_and_then_ends_the_game() -> None:
    env = make("TicTacToe-v0", seat=0)
    env.reset(seed=0)
    said, _, over, _, _ = env.step("hello")
    assert "invalid move" in said
    assert not over
    said, reward, over, _, info = env.step("hello")
    assert (reward, over, info["invalid_move"]) == (-1.0, True, 1.0)
    assert said


def test_observations_say_only_what_is_new() -> None:
    env = make("TicTacToe-v0", seat=0)
    first, _ = env.reset(seed=0)
    second, *_ = env.step("[4]")
    assert "You are Player 0" in first
    assert "You are Player 0" not in second
    assert "[Player 1]" in second
    assert "[4]" not in second.partition("Current Board")[0]  # its own move it knows


def test_the_seat_is_drawn_or_given() -> None:
    drawn = make("TicTacToe-v0")
    assert {drawn.reset(seed=seed) and drawn.player for seed in range(20)} == {0, 1}
    given = make("TicTacToe-v0", seat=1)
    assert {given.reset(seed=seed) and given.player for seed in range(20)} == {1}


def test_the_random_opponent_makes_moves_that_are_allowed() -> None:
    env = make("TicTacToe-v0")
    for seed in range(30):
        env.reset(seed=seed)
        over = False
        while not over:
            free = first_free_cell(env.heard[-1].content, env.np_random)
            *_, over, _, info = env.step(free)
        assert info["invalid_move"] == 0.0
        assert not env.game.state.game_info[1 - env.player]["invalid_move"]


def test_an_opponent_of_ones_own_plays() -> None:
    env = make("TicTacToe-v0", seat=1, opponent=f"{__name__}:first_free_cell")
    assert "[Player 0] [0]" in env.reset(seed=0)[0]
    assert "[Player 0] [1]" in env.step("[8]")[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("TwentyQuestions-v0", "asks a language model on a server"),
        ("Countdown-v0", "reward is a text"),
        ("UsedCarNegotiation-v0", "data is not in the package"),
        ("ThreePlayerIPD-v0", "games of one and two players"),
        ("Nim-v0", "no random opponent: give opponent="),
    ],
)
def test_what_cannot_be_played_says_why(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(name)


def test_no_game_is_both_refused_and_playable() -> None:
    assert not REFUSED.keys() & NO_RANDOM_MOVES


def test_unknown_names_name_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'TicTacToe-v0'"):
        make("TicTacTo-v0")
    with pytest.raises(UnknownNameError, match="has no 'nobody'"):
        make("TicTacToe-v0", opponent="llmgym:nobody")
    with pytest.raises(ConfigError, match="expected 0, 1 or null, got 2"):
        make("TicTacToe-v0", seat=2)

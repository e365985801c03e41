"""Grid worlds: the map tells all, every map can be solved, and only the goal pays."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playing import LAZY, contents, make, played, told

import llmgym
from llmgym.envs.gridworld.board import MOVES, Board, State
from llmgym.envs.gridworld.search import shortest_solution, states_by_distance
from llmgym.errors import ConfigError

KINDS = ["lake", "maze", "sokoban"]
SETTINGS = [(kind, difficulty) for kind in KINDS for difficulty in range(4)]


def map_of(observation: str) -> list[list[str]]:
    return [line.split(" ") for line in observation.splitlines() if line.startswith("#")]


def pushed(grid: list[list[str]], name: str) -> list[list[str]] | str:
    """Move on the characters of a map; return the map after it, or how it ended."""
    floor = {"A": ".", "a": "G", "B": ".", "b": "G"}
    grid = [list(row) for row in grid]
    (r, c) = next((r, c) for r, row in enumerate(grid) for c, cell in enumerate(row) if cell in "Aa")
    dr, dc = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}[name]
    y, x, yy, xx = r + dr, c + dc, r + 2 * dr, c + 2 * dc
    sokoban = any(cell in "Bb" for row in grid for cell in row)
    if grid[y][x] == "#" or (grid[y][x] in "Bb" and grid[yy][xx] in "#Bb"):
        return grid
    if grid[y][x] in "Bb":
        grid[yy][xx] = "b" if grid[yy][xx] == "G" else "B"
        grid[y][x] = floor[grid[y][x]]
    if grid[y][x] == "O":
        return "You fell into a hole."
    grid[r][c] = floor[grid[r][c]]
    grid[y][x] = "a" if grid[y][x] == "G" else "A"
    flat = [cell for row in grid for cell in row]
    return "Solved." if ("B" not in flat if sokoban else "a" in flat) else grid


@pytest.mark.parametrize(("kind", "difficulty"), SETTINGS)
def test_the_map_changes_as_its_rules_say(kind: str, difficulty: int) -> None:
    env = make("GridWorld", kind=kind, difficulty=difficulty)
    for seed in range(15):
        seen, _ = env.reset(seed=seed)
        over = False
        while not over:
            before, move = map_of(seen), str(env.np_random.choice(list(MOVES)))
            seen, reward, over, truncated, _ = env.step(f"I go {move}.")
            expected = pushed(before, move)
            assert (map_of(seen) or seen.splitlines()[-1]) == expected
            assert reward == (expected == "Solved.")
            assert seen.startswith("You cannot move") == (expected == before)
            over = over or truncated


@pytest.mark.parametrize(("kind", "difficulty"), SETTINGS)
def test_the_expert_earns_it_all_in_half_of_the_turns_and_a_mistake_nothing(kind: str, difficulty: int) -> None:
    env = make("GridWorld", kind=kind, difficulty=difficulty)
    for seed in range(25):
        total, info = told(env, seed, "expert")
        assert (total, info) == (1.0, {"success": 1.0, "solved": 1.0, "invalid": 0.0})
        low, high = env.level.moves
        assert low <= len(env.episode.turns) <= high <= env.level.turns / 2
        total, info = told(env, seed, "mistake")
        assert total <= 0
        assert info["success"] == 0


def test_a_start_is_as_far_away_as_the_search_from_the_other_side_finds() -> None:
    for seed in range(5):
        env = make("GridWorld", kind="sokoban", difficulty=1)
        env.reset(seed=seed)
        board = env.episode.task.board
        solved = [State(cell, frozenset(board.cells("G"))) for cell in board.cells(".")]
        for distance, ring in enumerate(states_by_distance(board, solved, 8)):
            for state in ring[:10]:
                assert len(shortest_solution(board, state) or []) == distance


def test_a_board_without_a_way_has_no_solution() -> None:
    board = Board(("#####", "#.#G#", "#####"), pushing=False)
    assert shortest_solution(board, State((1, 1))) is None
    stuck = Board(("######", "#..G.#", "######"), pushing=True)
    assert shortest_solution(stuck, State((1, 1), frozenset({(1, 4)}))) is None


@pytest.mark.parametrize("difficulty", range(4))
def test_who_names_no_move_loses_a_little_and_no_lazy_policy_gets_far(difficulty: int) -> None:
    env = make("GridWorld", difficulty=difficulty)
    for seed in range(20):
        total, info = played(env, seed, LAZY["empty"])
        assert total == pytest.approx(-0.02 * env.level.turns)
        assert info == {"success": 0.0, "solved": 0.0, "invalid": env.level.turns}
    for name, policy in LAZY.items():
        assert sum(played(env, seed, policy)[0] for seed in range(20)) / 20 < 0.35, name


@pytest.mark.parametrize(
    ("reply", "move"),
    [
        ("up", "up"),
        ("UP!", "up"),
        ("I will not go left, so: **Down**", "down"),
        ("right\nright", "right"),
        ("Upright downtown", None),
        ("move_up", None),
        ("↑", None),
        ("", None),
    ],
)
def test_the_last_move_that_is_named_counts(reply: str, move: str | None) -> None:
    env = make("GridWorld", kind="maze")
    seen, _ = env.reset(seed=1)
    before = map_of(seen)
    seen, _, _, _, info = env.step(reply)
    assert info["invalid"] == (move is None)
    assert (map_of(seen) or seen) == (before if move is None else pushed(before, move))


@given(st.lists(st.one_of(st.text(), st.sampled_from(list(MOVES))), min_size=1, max_size=30))
def test_whatever_is_replied_an_episode_goes_on_to_its_end(replies: list[str]) -> None:
    env = make("GridWorld")
    env.reset(seed=len(replies))
    for reply in replies:
        _, _, terminated, truncated, info = env.step(reply)
        if terminated or truncated:
            break
        assert info["invalid"] in (0.0, 1.0)


def test_no_map_is_in_both_splits() -> None:
    for kind in KINDS:
        seen = {split: contents("GridWorld", split, range(150), kind=kind) for split in ("train", "eval")}
        assert not seen["train"] & seen["eval"]
        assert min(map(len, seen.values())) > 100


def test_any_kind_is_each_kind_in_turn() -> None:
    env = make("GridWorld")
    kinds = set()
    for seed in range(30):
        env.reset(seed=seed)
        kinds.add(env.episode.task.kind)
    assert kinds == set(KINDS)


@pytest.mark.parametrize("options", [{"kind": "desert"}, {"difficulty": 7}, {"split": None}])
def test_an_unknown_setting_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))} has to be one of"):
        make("GridWorld", **options)


@pytest.mark.parametrize("kind", KINDS)
def test_the_checker_finds_nothing(kind: str) -> None:
    llmgym.check_env(make("GridWorld", kind=kind, render_mode="ansi"), seeds=10)


def test_a_hundred_kilobytes_are_read_at_once() -> None:
    env = make("GridWorld")
    env.reset(seed=0)
    began = time.process_time()
    env.step("up " * 33_000)
    env.step("x" * 100_000)
    assert time.process_time() - began < 0.5
